"""Debian packages made from bytes, and a source of apt in a folder."""

from __future__ import annotations

import hashlib
import io
import lzma
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

FORMAT = ("debian-binary", b"2.0\n")


def ar(members: Iterable[tuple[str, bytes]]) -> bytes:
    """Return an ar archive."""
    parts = [b"!<arch>\n"]
    for name, data in members:
        header = f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n"
        parts += [header.encode(), data, b"\n" * (len(data) % 2)]
    return b"".join(parts)


def tar(files: Mapping[str, bytes], links: Mapping[str, str] = {}) -> bytes:
    """Return a tar archive of executable files in `bin`, other files and symbolic links, named as dpkg does: `./bin/sh`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as made:
        for name, data in files.items():
            header = tarfile.TarInfo(f"./{name}")
            header.size, header.mode = len(data), 0o755 if "bin/" in name else 0o644
            made.addfile(header, io.BytesIO(data))
        for name, target in links.items():
            header = tarfile.TarInfo(f"./{name}")
            header.type, header.linkname = tarfile.SYMTYPE, target
            made.addfile(header)
    return buffer.getvalue()


def deb(files: Mapping[str, bytes]) -> bytes:
    """Return a package with these files."""
    return ar([FORMAT, ("control.tar.xz", lzma.compress(tar({}))), ("data.tar.xz", lzma.compress(tar(files)))])


def source(folder: Path, packages: Mapping[tuple[str, str], bytes]) -> dict[str, str]:
    """Make the folder the only source of apt, with packages by name and version. Return the variables that apt needs."""
    pool = folder / "pool"
    pool.mkdir(exist_ok=True)
    stanzas = []
    for (name, version), data in packages.items():
        file = pool / f"{name}_{version}.deb"
        file.write_bytes(data)
        stanzas.append(
            f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: nobody\nDescription: a test\n"
            f"Filename: ./{file.name}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
        )
    (pool / "Packages").write_text("\n".join(stanzas))
    (folder / "sources.list").write_text(f"deb [trusted=yes] file:{pool} ./\n")
    (folder / "state").mkdir(exist_ok=True)
    (folder / "status").write_text("")
    (folder / "apt.conf").write_text(
        f'Dir::Etc::sourcelist "{folder}/sources.list";\nDir::Etc::sourceparts "/dev/null";\n'
        f'Dir::State "{folder}/state";\nDir::State::status "{folder}/status";\n'
    )
    return {"APT_CONFIG": str(folder / "apt.conf")}
