"""What is in a layer: read back by tarfile, whose types, modes and headers are those of the specification."""

from __future__ import annotations

import io
import tarfile

from bkrules.images.layer import Entry, device, directory, layer, opaque, symlink, whiteout


def members(entries: dict[str, Entry]) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(layer(entries))) as tar:
        return {member.name: member for member in tar}


def test_an_empty_directory_has_its_mode() -> None:
    found = members({"tmp": directory(0o1777), "var/cache": directory(0o700), "var/cache/a": Entry(b"1")})

    assert list(found) == ["tmp", "var", "var/cache", "var/cache/a"]
    assert {name: member.mode for name, member in found.items()} == {
        **{"tmp": 0o1777, "var": 0o755, "var/cache": 0o700, "var/cache/a": 0o644}
    }


def test_devices_and_pipes() -> None:
    found = members({"dev/null": device("c 1 3"), "dev/sda": device("b 8 0"), "run/pipe": device("p")})

    assert (found["dev/null"].ischr(), found["dev/null"].devmajor, found["dev/null"].devminor) == (True, 1, 3)
    assert (found["dev/sda"].isblk(), found["dev/sda"].devmajor, found["dev/sda"].devminor) == (True, 8, 0)
    assert found["run/pipe"].isfifo()


def test_a_hard_link_follows_the_file_that_it_names() -> None:
    link = Entry(mode=0o755, kind=tarfile.LNKTYPE, link="z/file")
    found = members({"a": link, "z/file": Entry(b"text", 0o755), "b": symlink("a")})

    assert list(found) == ["z", "b", "z/file", "a"]
    assert (found["a"].islnk(), found["a"].linkname, found["a"].mode) == (True, "z/file", 0o755)


def test_owners_and_attributes_that_fit_no_plain_header() -> None:
    found = members(
        {
            "mine": Entry(b"1", 0o4755, owner=(1000, 100)),
            "high": Entry(b"2", owner=(4294967294, 3000000)),
            "noted": Entry(b"3", xattrs={"user.note": "é".encode(), "security.capability": b"\1\0\0\2\xff"}),
        }
    )

    assert (found["mine"].uid, found["mine"].gid, found["mine"].mode) == (1000, 100, 0o4755)
    assert found["mine"].pax_headers == {}
    assert (found["high"].uid, found["high"].gid) == (4294967294, 3000000)
    noted = found["noted"].pax_headers
    assert noted["SCHILY.xattr.user.note"].encode("utf-8", "surrogateescape") == "é".encode()
    assert noted["SCHILY.xattr.security.capability"].encode("utf-8", "surrogateescape") == b"\1\0\0\2\xff"


def test_whiteouts_come_before_their_siblings() -> None:
    found = members(
        {
            whiteout("etc/motd"): Entry(),
            opaque("var/cache"): Entry(),
            whiteout("gone"): Entry(),
            "etc/deep/new": Entry(b"1"),
            "bin": directory(),
        }
    )

    assert list(found) == [
        *("etc", "var", "var/cache"),
        *(".wh.gone", "etc/.wh.motd", "var/cache/.wh..wh..opq"),
        *("bin", "etc/deep", "etc/deep/new"),
    ]
    assert all(found[name].size == 0 for name in found if ".wh." in name)
