"""The commands of users' own builds."""

from __future__ import annotations

from pathlib import Path

import pytest

from bkrules.errors import UsageError
from bkrules.repro.own_command import OwnCommand, read

BUILD = ["build", "--frontend=dockerfile.v0"]


def of(*words: str) -> OwnCommand:
    return read(words, {b"known-secret": "TOKEN"})


def test_a_build_of_buildctl_becomes_one_in_a_cell() -> None:
    found = of(
        *("buildctl", "--addr", "tcp://x:1", "--debug", "build", "--frontend", "dockerfile.v0", "--opt", "target=a"),
        *("--opt", "build-arg:A=b=c", "--local", "context=.", "--local", "dockerfile=sub", "--no-cache"),
        *("--progress", "tty", "-o", "type=tar,dest=x.tar"),
    )
    assert found.words == (
        *("build", "--progress=plain", "--frontend=dockerfile.v0"),
        *("--local=context=/src/local/context", "--local=dockerfile=/src/local/dockerfile"),
        *("--opt=target=a", "--opt=build-arg:A=b=c", "--no-cache", "--output=type=tar,dest=/tmp/output/0"),
    )
    assert [(one.name, one.path, one.only) for one in found.folders] == [
        ("context", Path(), None),
        ("dockerfile", Path("sub"), {"Dockerfile", "Dockerfile.dockerignore", "dockerfile"}),
    ]
    assert found.left_out == ("--addr (the daemon is the cell's)",)
    assert of(*BUILD).words == of("buildctl", *BUILD).words == of("/usr/bin/buildctl", *BUILD).words


def test_a_build_of_docker_becomes_one_of_buildctl(tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_text("out")
    (tmp_path / "my.Dockerfile.dockerignore").write_text("own")
    words = f"docker buildx build -t a:b -f {tmp_path}/my.Dockerfile --target=t --platform linux/arm64 --network host".split()
    words += ["--build-arg", "A=b", "--build-arg", "FROM_HERE", "--label", "l=m", "--build-context", "other=sub"]
    words += [
        "--build-context",
        "base=docker-image://x",
        "--add-host",
        "h:1.2.3.4",
        "--push",
        "-o",
        "out",
        str(tmp_path),
    ]
    found = of(*words)
    options = [word.removeprefix("--opt=") for word in found.words if word.startswith("--opt=")]
    assert options == [
        *("filename=my.Dockerfile", "build-arg:A=b", "label:l=m", "context:other=local:other"),
        *("context:base=docker-image://x", "target=t", "platform=linux/arm64", "force-network-mode=host"),
        "add-hosts=h=1.2.3.4",
    ]
    assert "--output=type=local,dest=/tmp/output/0" in found.words
    assert [(one.name, str(one.path)) for one in found.folders] == [
        ("context", str(tmp_path)),
        ("dockerfile", str(tmp_path)),
        ("other", "sub"),
    ]
    assert (found.folders[0].ignored.has("own"), found.folders[0].ignored.has("out")) == (True, False)
    assert found.left_out == (
        "--push (a cell has no registry to push to)",
        "--build-arg FROM_HERE (its value is in the environment)",
    )
    assert of("docker", "build", str(tmp_path)).folders[0].ignored.has("out")


def test_secrets_are_left_out_by_name() -> None:
    found = of(
        *(*BUILD, "--secret", "id=npm,src=/root/.npmrc", "--secret=type=env,id=pip,env=PIP", "--ssh", "default=/run/x"),
        *("--opt", "build-arg:API_TOKEN=value", "--opt", "build-arg:A=xknown-secretx", "--opt=build-arg:AUTHOR=me"),
        *("--opt", "build-arg:INDEX=https://me:pass-word@host/", "--registry-auth-tlscontext", "host=h,key=/root/key"),
        *("--output", "type=image,name=x,push=true", "--import-cache", "type=gha,token=t", "--metadata-file", "m"),
    )
    assert found.left_out == (
        *("--secret id=npm (a secret)", "--secret id=pip (a secret)", "--ssh default (a secret)"),
        *("--metadata-file (a cell ends with its files)", "--registry-auth-tlscontext host (a secret)"),
        "--import-cache (a cell has no other cache)",
        *(f"--opt build-arg:{name} (a secret)" for name in ("API_TOKEN", "A", "INDEX")),
        "push=true of --output (a cell has no registry to push to)",
    )
    text = " ".join([*found.words, *found.left_out])
    for value in ("npmrc", "/run/x", "value", "known-secret", "pass-word", "/root/key", "token=t"):
        assert value not in text, value
    assert "--opt=build-arg:AUTHOR=me" in found.words
    assert "--output=type=image,name=x" in found.words


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["make"], "but the command is 'make'"),
        (["buildctl", "prune"], "but the command is `buildctl prune`"),
        (["buildctl"], "but the command is `buildctl `"),
        (["docker", "run", "x"], "but the command is `docker run x`"),
        (["docker", "build"], "it needs the folder of the context"),
        (["docker", "build", "-"], "it needs the folder of the context"),
        (
            ["docker", "build", "https://me:pass-word@h/x"],
            r"the context is https://\*\*\*@h/x, and a cell has no network",
        ),
        (["docker", "build", "--unknown", "."], "unrecognized arguments: --unknown"),
        (["build", "--local", "context=."], "without --frontend"),
        ([*BUILD, "--unknown"], "unrecognized arguments: --unknown"),
        ([*BUILD, "more"], "it takes no word 'more'"),
        ([*BUILD, "--local", "context"], "--local must be NAME=VALUE, but was 'context'"),
        ([*BUILD, "--local", "../x=."], "--local: '../x' cannot be the name"),
        ([*BUILD, "--opt", "context=git@github.com:x/y"], "a cell has no network"),
        ([*BUILD, "--opt", "context:base=https://x/y"], "a cell has no network"),
        ([*BUILD, "--oci-layout", "x=y"], "bk packs no OCI layout"),
        ([*BUILD, "--source-policy-file", "x"], "bk packs no source policy"),
        ([*BUILD, "--allow", "known-secret"], "--allow contains the value of TOKEN"),
        ([*BUILD, "--output", '"x'], "is malformed"),
        ([*BUILD, "--local", "context=\udcff"], "is not UTF-8"),
    ],
)
def test_other_commands_are_errors(words: list[str], why: str) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        of(*words)
    assert "pass-word" not in str(caught.value)
