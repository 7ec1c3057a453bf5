"""What an `image` is made of is what a container of it has, on real workers."""

from __future__ import annotations

from spaces import Space

BUILD = """
image(
    name = "low",
    base = ":busybox",
    files = {"etc/motd": "motd"},
    noise = {"var/cache/old": 1, "srv/secret": 1},
)
image(
    name = "made",
    base = ":low",
    files = {"usr/bin/su": "motd"},
    symlinks = {"etc/link": "passwd"},
    hardlinks = {"usr/bin/login": "usr/bin/su"},
    noise = {"etc/passwd": 10},
    directories = {"tmp": "1777", "root": "0700", "var/cache": "0755", "home/user": "0750"},
    devices = {"dev/made": "c 1 3", "run/pipe": "p"},
    whiteouts = ["srv/secret", "etc/motd"],
    opaque = ["var/cache"],
    modes = {"usr/bin/su": "4755"},
    owners = {"home/user": "1000:100", "etc/passwd": "60000:0"},
    xattrs = {"etc/passwd": {"user.note": "kept", "user.bytes": "0s//4A"}},
)
image_mirror(name = "images", images = {"docker.io/library/made:latest": ":made", "docker.io/library/busybox:latest": ":busybox"})
test_matrix(name = "small", tests = ["//t:test_small.py"], workers = [WORKERS], mirror = ":images")
"""
TEST = """
import tarfile

def test_made(sandbox, tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM docker.io/library/made:latest\\nRUN ls / > /ran\\n")
    local = ["--local", f"context={tmp_path}", "--local", f"dockerfile={tmp_path}"]
    sandbox.run(["build", "--frontend=dockerfile.v0", *local, "--output", f"type=tar,dest={tmp_path}/out.tar"])
    with tarfile.open(tmp_path / "out.tar") as tar:
        found = {member.name.rstrip("/"): member for member in tar}
        assert tar.extractfile("ran").read().split() >= [b"bin"]
    modes = {path: oct(found[path].mode & 0o7777) for path in ("tmp", "root", "home/user", "usr/bin/su", "usr/bin/login")}
    assert modes == {
        "tmp": "0o1777", "root": "0o700", "home/user": "0o750", "usr/bin/su": "0o4755", "usr/bin/login": "0o4755"
    }
    assert (found["home/user"].uid, found["home/user"].gid) == (1000, 100)
    assert found["etc/passwd"].size == 10
    assert found["usr/bin/su"].islnk() != found["usr/bin/login"].islnk(), "one of them is a link to the other"
    assert found["etc/link"].linkname == "passwd"
    assert not {"srv/secret", "etc/motd", "var/cache/old"} & {*found}
    assert "var/cache" in found and "bin/box" in found
    assert found["run/pipe"].isfifo()
    assert found["etc/passwd"].uid == 60000
    headers = {name: text.encode("utf-8", "surrogateescape") for name, text in found["etc/passwd"].pax_headers.items()}
    assert headers["SCHILY.xattr.user.note"] == b"kept"
    assert headers["SCHILY.xattr.user.bytes"] == b"\\xff\\xfe\\0"
    if "rootless" not in sandbox.worker:  # no device can be made in a user namespace
        assert (found["dev/made"].ischr(), found["dev/made"].devmajor, found["dev/made"].devminor) == (True, 1, 3)
"""


def test_an_image_has_what_it_is_made_of(tools: Space) -> None:
    build = tools.root / "targets/BUILD.py"
    workers = '":oci", ":containerd", ":rootless"'
    text = build.read_text().replace(", worker", ", test_matrix, worker", 1)
    build.write_text(text + BUILD.replace("WORKERS", workers))
    tools.write("targets/motd", "a message\n")
    tools.write("t/BUILD.py", "")
    tools.write("t/test_small.py", TEST)

    done = tools.bk("build", "//targets:small")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 cells: 3 passed" in done.stdout
