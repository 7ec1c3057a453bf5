"""The images that stand for those of others have what tests look for, on real workers. apt fetches their busybox."""

from __future__ import annotations

import pytest
from spaces import Space

BUILD = """
from bkrules import test_matrix
test_matrix(
    name = "m",
    tests = ["test_it.py"],
    workers = ["//targets:oci", "//targets:rootless"],
    mirror = "//targets/tools/buildkit-tests:mirror",
    axes = {"image": {"busybox": "busybox", "alpine": "alpine"}},
)
"""
TEST = r"""
import tarfile

DOCKERFILE = '''
FROM docker.io/library/{image}:latest AS made
RUN [ "$(id -u):$(id -g)/$(id -un):$(id -gn)" = 0:0/root:root ] && id | grep -q '10(wheel)'
RUN [ "$(stat -c %a /tmp /root | xargs)" = "1777 700" ] && [ -d /dev ] && [ -d /var ] && [ "$HOME" = /root ]
RUN head -c 100 /dev/zero | sha256sum | grep -q ^cd00e292c5970d3c5e2f0ffa5171e555bc46bfc4faddfb4a418b6840b86e79a3
RUN dd if=/dev/zero bs=1k count=1 2>/dev/null | od -An -tx1 | grep -q '00 00' && env | grep -q ^PATH=
RUN addgroup -g 2000 some && adduser -D -u 1500 -G some other && adduser -D user && ! adduser -D user
RUN id other | grep '^uid=1500(other) gid=2000(some)' && [ "$(stat -c %U:%G /home/user)" = user:user ]
RUN ! ttysize 2>&1 | grep 'not found'
RUN if [ {image} = alpine ]; then [ -f /etc/alpine-release ] && [ -f /sbin/apk ] && ! apk add curl; fi
USER user
RUN [ "$(whoami)" = user ] && echo "$(id -u)" > /home/user/id
FROM scratch
COPY --from=made /home/user/id /
'''

def test_it(sandbox, tmp_path):
    (tmp_path / "Dockerfile").write_text(DOCKERFILE.replace("{image}", sandbox.axes["image"].value))
    local = ["--local", f"context={tmp_path}", "--local", f"dockerfile={tmp_path}"]
    sandbox.run(["build", "--frontend=dockerfile.v0", *local, "--output", f"type=tar,dest={tmp_path}/out.tar"])
    with tarfile.open(tmp_path / "out.tar") as tar:
        assert tar.extractfile("id").read() == b"1000\n"
"""


@pytest.mark.soak
def test_real_images(clone: Space) -> None:
    clone.write("t/BUILD.py", BUILD)
    clone.write("t/test_it.py", TEST)
    done = clone.bk("build", "//t:m")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 cells: 4 passed" in done.stdout
