"""Dockerfiles, as in BuildKit's dockerfile_test.go: stages, targets, arguments, contexts, ownership."""

from __future__ import annotations

import os
import re
import stat

import pytest
from builder import BUSYBOX, Builder

from bkrules.testing.sandbox import CommandFailed, Sandbox

STAGES = f"""{BUSYBOX[:-1]} AS first
RUN echo one > /one
FROM first AS second
RUN echo two > /two
FROM scratch
COPY --from=second /two /
"""


def test_the_last_stage_is_the_result(build: Builder) -> None:
    assert [path.name for path in build.files(STAGES).iterdir()] == ["two"]


def test_a_target_is_the_result(build: Builder) -> None:
    out = build.files(STAGES, "--opt=target=first")
    assert (out / "one").exists()
    assert not (out / "two").exists()


def test_a_stage_that_nothing_needs_is_not_built(build: Builder) -> None:
    build(f"{BUSYBOX}RUN false\n{BUSYBOX}RUN true\n")


def test_an_unknown_target_is_an_error(build: Builder) -> None:
    with pytest.raises(CommandFailed, match='target stage "third" could not be found'):
        build(STAGES, "--opt=target=third")


def test_arguments(build: Builder) -> None:
    dockerfile = f"{BUSYBOX}ARG NAME=nobody\nARG TARGETARCH\nRUN echo $NAME on $TARGETARCH > /who\n"
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    assert (build.files(dockerfile) / "who").read_text() == f"nobody on {architecture}\n"
    assert (
        build.files(dockerfile, "--opt=build-arg:NAME=someone") / "who"
    ).read_text() == f"someone on {architecture}\n"


def test_a_named_context(build: Builder) -> None:
    other = build.folder / "other"
    other.mkdir()
    (other / "data").write_text("of the other")
    out = build.files(
        "FROM scratch\nCOPY --from=more data /\n", f"--local=more={other}", "--opt=context:more=local:more"
    )
    assert (out / "data").read_text() == "of the other"


def test_ignored_files_are_not_sent(build: Builder) -> None:
    files = {"kept/a": "a", "left/b": "b", "left/c": "c", ".dockerignore": "left\n!left/c\n"}
    out = build.files("FROM scratch\nCOPY . /\n", files=files)
    assert (out / "kept/a").exists()
    assert (out / "left/c").exists()
    assert not (out / "left/b").exists()


def test_a_heredoc(build: Builder) -> None:
    out = build.files(f"{BUSYBOX}COPY <<one <<two /here/\n1\none\n2\ntwo\nRUN <<end\necho a > /a\necho b > /b\nend\n")
    assert [(out / name).read_text() for name in ("here/one", "here/two", "a", "b")] == ["1\n", "2\n", "a\n", "b\n"]


@pytest.mark.requires("oci_exporter")
def test_owner_and_mode_of_a_copy(build: Builder) -> None:
    layout = build.layout(f"{BUSYBOX}COPY --chown=1000:2000 --chmod=0751 Dockerfile /d\n")
    with layout.layer(-1) as tar:
        member = tar.getmember("d")
    assert (member.uid, member.gid, stat.S_IMODE(member.mode)) == (1000, 2000, 0o751)


@pytest.mark.requires("oci_exporter")
def test_links_and_deletions(build: Builder) -> None:
    steps = ("mkdir /d && echo 1 > /d/a && echo 2 > /d/b", "rm /d/a", "rm -rf /d && mkdir /d && echo 3 > /d/c")
    dockerfile = BUSYBOX + "".join(f"RUN {step}\n" for step in steps)
    out = build.files(dockerfile)
    assert [path.name for path in (out / "d").iterdir()] == ["c"]
    layout = build.layout(dockerfile)
    with layout.layer(-2) as tar:
        assert "d/.wh.a" in tar.getnames()


@pytest.mark.requires("oci_exporter")
def test_the_configuration_of_the_image(build: Builder) -> None:
    lines = (
        'ENV GREETING=hello\nWORKDIR /work\nUSER 1000\nEXPOSE 80\nLABEL a=b\nENTRYPOINT ["/bin/echo"]\nCMD ["hello"]\n'
    )
    config = build.layout(BUSYBOX + lines).config()["config"]
    assert "GREETING=hello" in config["Env"]
    assert {name: config[name] for name in ("WorkingDir", "User", "Entrypoint", "Cmd")} == {
        "WorkingDir": "/work",
        "User": "1000",
        "Entrypoint": ["/bin/echo"],
        "Cmd": ["hello"],
    }
    assert config["ExposedPorts"] == {"80/tcp": {}}
    assert config["Labels"] == {"a": "b"}


def test_a_failure_names_its_line(build: Builder) -> None:
    with pytest.raises(CommandFailed, match=r"Dockerfile:2") as caught:
        build(f"{BUSYBOX}RUN echo before; false\n")
    assert re.search(
        r'process "/bin/sh -c echo before; false" did not complete successfully: exit code: 1', str(caught.value)
    )


def test_what_was_built_is_in_the_history(build: Builder, sandbox: Sandbox) -> None:
    build(BUSYBOX)
    with pytest.raises(CommandFailed):
        build(f"{BUSYBOX}RUN false\n")
    listed = sandbox.run("debug histories").stdout
    assert len(listed.strip().splitlines()) >= 2, listed
