"""Tests of Dockerfiles without code, on real workers, and the page that shows them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pages import commands_of
from spaces import Space

Report = Callable[..., dict[str, Any]]
PAGE = Path(__file__).parents[2] / "docs/builds.md"
BUILD = """from bkrules import build_agreement, build_test, glob

SIX = ["//targets:" + name for name in ("oci", "containerd", "rootless", "oci_stargz", "containerd_stargz", "dockerd")]
HERE = {"mirror": "//targets:mirror", "dockerfile": "Dockerfile", "context": glob(["app/**"])}

build_test(name = "right", workers = ["//targets:rootless"], expect = {
    "files": {
        "/hello.txt": "hello world\\n",
        "/app/run.sh": {"sha256": "SHA256"},
        "/app": True,
        "/gone": False,
    },
    "modes": {"/app/run.sh": "0755", "/app/data": "644", "/hello.txt": "0640"},
    "owners": {"/app/run.sh": "0:0", "/hello.txt": "1000:100"},
    "env": {"GREETING": "hello", "PATH": "/bin", "NONE": False},
    "labels": {"org.example.a": "b"},
    "entrypoint": ["/app/run.sh"],
    "cmd": ["-v"],
    "user": "1000",
    "workdir": "/app",
    "cached": ["COPY app", "RUN echo"],
}, **HERE)
build_test(name = "wrong", workers = ["//targets:oci"], build_args = {"NAME": "moon"}, target = "base", expect = {
    "files": {"/hello.txt": "hello world\\n", "/gone": True},
    "env": {"GREETING": "hello"},
    "cached": True,
}, **HERE)
build_test(name = "failing", workers = ["//targets:oci"], target = "broken", expect = {"fails_with": "exit code: 3"}, **HERE)
build_test(name = "unfailing", workers = ["//targets:oci"], target = "broken", expect = {"user": ""}, **HERE)
build_test(name = "flat", workers = ["//targets:dockerd_graphdriver"], expect = {
    "files": {"/hello.txt": "hello world\\n"}, "digest": "sha256:" + "0" * 64,
}, **HERE)
build_test(name = "lazy", workers = ["//targets:containerd_stargz"], dockerfile = "Lazy", mirror = HERE["mirror"], expect = {
    "files": {"/box": {"sha256": "BOX"}}, "cached": True,
})
build_agreement(
    name = "planted",
    workers = SIX,
    axes = {"mode": {"usual": {}, "planted": {"build_args": {"MODE": "0700"}}}},
    exclude = [{"mode": "planted"}, {"worker": "containerd", "mode": "usual"}],
    include = [{"worker": "containerd", "mode": "planted"}],
    expected = [{"mode": "planted", "what": "config", "path": "history"}],
    **HERE
)
RELEASES = {"0.17": {"tools": {"buildkitd": "//targets/tools/releases:buildkitd_v0.17.3"}}, "0.34": {}}
[
    build_agreement(name = name, workers = SIX[:3], axes = {"buildkitd": RELEASES}, expected = expected, **HERE)
    for name, expected in {
        "known": [],
        "expected": [{"worker": "rootless", "buildkitd": "0.17", "what": "presence", "path": "/sys"}],
        "stale": [{"what": "p*", "path": "/sys"}, {"what": "owner", "path": "/proc"}],
    }.items()
]
"""
DOCKERFILE = """# syntax=docker.io/docker/dockerfile:1
FROM docker.io/library/busybox:latest AS base
ARG NAME=world MODE=0755
COPY app /app
RUN echo hello $NAME > /hello.txt; chmod 640 /hello.txt; chmod $MODE /app/run.sh

FROM base AS broken
RUN exit 3

FROM base
COPY --from=base --chown=1000:100 /hello.txt /hello.txt
ENV GREETING=hello
LABEL org.example.a=b
USER 1000
WORKDIR /app
ENTRYPOINT ["/app/run.sh"]
CMD ["-v"]
"""
SCRIPT = "echo a program\n"


def test_builds_are_what_is_expected_and_agree(tools: Space, repository: Path, report: Report) -> None:
    """All in one build: tests that hold and that do not, and agreements on six workers and on two releases."""
    tools.write("b/Dockerfile", DOCKERFILE)
    tools.write("b/Lazy", "FROM docker.io/library/busybox:esgz\nRUN cp /bin/box /box\n")
    tools.write("b/app/run.sh", SCRIPT)
    tools.write("b/app/data", "data\n")
    box = hashlib.sha256((repository / "bk-out/@bk_tools/box/box").read_bytes()).hexdigest()
    script = hashlib.sha256(SCRIPT.encode()).hexdigest()
    tools.write("b/BUILD.py", BUILD.replace("SHA256", script).replace("BOX", box))

    done = tools.bk("test", "//b:all")

    assert done.returncode == 3, done.stdout + done.stderr
    reasons = {
        f"{name} {cell['name']}": cell["reason"]
        for name in ("right", "wrong", "failing", "unfailing", "flat", "lazy", "planted", "known", "expected", "stale")
        for cell in report(tools.root, name, "b")["cells"]
        if cell["status"] != "passed"
    }
    failure = reasons.pop("unfailing test_build/worker=oci")
    assert failure.startswith("the build failed: error: failed to solve: process")
    assert reasons == {
        "wrong test_build/worker=oci": "/gone: does not exist (and 2 more)",
        "flat test_build/worker=dockerd": "digest: unknown, since dockerd cannot export an OCI image",
        "planted agreement/worker=all": "containerd/mode=planted: modes of /app/run.sh differ from 5 others: 0700, not 0755",
        "known agreement/worker=all": "rootless/buildkitd=0.17: has no /sys, unlike 5 others",
        "stale agreement/worker=all": (
            """no difference is {"path": "/proc", "what": "owner"}: remove it from 'expected'"""
        ),
    }
    log = (tools.root / "bk-out/b/wrong/test_build/worker=oci/test.log").read_text()
    assert "/hello.txt: has 'hello moon\\n', but must have 'hello world\\n'" in log
    assert "variable GREETING: is not set, but must be 'hello'; variables: PATH" in log
    found = json.loads((tools.root / "bk-out/b/planted/agreement/worker=all/agreement.json").read_text())
    assert [one["what"] for one in found["consequences"]] == ["layers", "digest"]
    assert "test_build/worker=oci" in (tools.root / "bk-out/b/planted/test.xml").read_text()

    again = tools.bk("test", "//b:right", "//b:expected")

    assert again.returncode == 0, again.stdout + again.stderr
    assert "8 cells: 8 passed (8 cached, 0 not)" in again.stdout


def examples(language: str) -> dict[str, str]:
    """The examples of the page by the names in their first lines."""
    blocks = re.findall(rf"^```{language}\n# (\S+)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return dict(blocks)


def test_the_page_is_true(tools: Space, report: Report) -> None:
    """What the page shows passes as it stands, records its file, and fails as soon as the Dockerfile changes."""
    found = examples("dockerfile") | examples("python")
    assert list(found) == ["hello/Dockerfile", "hello/BUILD.py"]
    for name, text in found.items():
        tools.write(name, text)
    tools.write("hello/app/run.sh", SCRIPT).chmod(0o755)

    file = tools.write(
        "hello/recorded.json", '{"files": {"/hello.txt": null}, "cmd": null, "digest": null, "cached": null}'
    )

    (command,) = commands_of("builds.md")
    assert command.startswith("./bk test --update_expectations ")
    recorded = tools.bk(*command.split()[1:])
    assert recorded.returncode == 0, recorded.stdout + recorded.stderr
    assert "//hello:recorded_test: wrote hello/recorded.json" in recorded.stdout
    values = json.loads(file.read_text())
    assert values.pop("digest").startswith("sha256:")
    assert values == {"files": {"/hello.txt": "hello world\n"}, "cmd": [], "cached": True}

    done = tools.bk("test", "//hello:all")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "11 cells: 11 passed" in done.stdout

    dockerfile = found["hello/Dockerfile"].replace("hello $NAME", "hi $NAME").replace("USER 1000\n", "")
    tools.write("hello/Dockerfile", dockerfile)
    changed = tools.bk("test", "--test_filter=worker=oci", "//hello:hello_test", "//hello:recorded_test")
    assert changed.returncode == 3
    failures = [
        cell["reason"]
        for name in ("hello_test", "recorded_test")
        for cell in report(tools.root, name, "hello")["cells"]
    ]
    user, text = "user: is '', but must be '1000'", "/hello.txt: has 'hi world\\n', but must have 'hello world\\n'"
    assert failures == [user, user, f"{text} (and 1 more)"]

    shell = tools.bk("shell", "//hello:hello_agreement[agreement/worker=all]", "--", "true")
    assert shell.returncode == 4
    assert "it compares what other cells built" in shell.stderr


FRONTEND = """
go_binary(
    name = "dockerfile-frontend",
    module = "github.com/moby/buildkit",
    version = "v0.34.2",
    package = "frontend/dockerfile/cmd/dockerfile-frontend",
    mod = "@bk_tools//buildkit:go.mod",
)
"""
GATEWAY = """from bkrules import build_test, image, image_mirror

image(
    name = "frontend",
    files = {"bin/dockerfile-frontend": "//:dockerfile-frontend"},
    entrypoint = ["/bin/dockerfile-frontend"],
)
image_mirror(
    name = "mirror",
    images = {"docker.io/my/frontend:latest": ":frontend", "docker.io/library/busybox:latest": "//targets:busybox"},
)
build_test(
    name = "gateway",
    workers = ["//targets:oci", "//targets:containerd", "//targets:rootless"],
    mirror = ":mirror",
    frontend = ":frontend",
    expect = {"files": {"/hello.txt": "hello\\n"}, "user": "1000", "cached": True},
)
"""


@pytest.mark.soak
def test_a_frontend_image_of_the_workspace_builds(tools: Space) -> None:
    workspace = tools.root / "WORKSPACE.py"
    workspace.write_text(workspace.read_text().replace("import bk_dep,", "import bk_dep, go_binary,") + FRONTEND)
    tools.write("g/BUILD.py", GATEWAY)
    tools.write("g/Dockerfile", "FROM docker.io/library/busybox:latest\nRUN echo hello > /hello.txt\nUSER 1000\n")

    done = tools.bk("test", "//g:gateway")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 cells: 3 passed" in done.stdout
    assert "--frontend=gateway.v0" in (tools.root / "bk-out/g/gateway/test_build/worker=oci/test.log").read_text()
