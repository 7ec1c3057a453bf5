"""Docker's configuration file, with its helpers."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rounds import rounds

from bkrules.errors import UsageError
from bkrules.images import docker_auth
from bkrules.images.docker_auth import Credentials, credentials
from bkrules.images.registry_auth import basic


@pytest.fixture
def docker(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Writes Docker's configuration; the environment that leads there."""

    def make(config: object, helper: str = "") -> dict[str, str]:
        folder = tmp_path / "docker"
        folder.mkdir()
        (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
        if helper:
            (folder / "docker-credential-tests").write_text(f"#!/bin/sh\nread host\n{helper}\n")
            (folder / "docker-credential-tests").chmod(0o755)
        return {"DOCKER_CONFIG": str(folder), "PATH": f"{folder}:{os.environ['PATH']}"}

    return make


def packed(pair: bytes) -> str:
    return base64.b64encode(pair).decode()


@pytest.mark.parametrize(
    ("config", "host", "found"),
    [
        (
            {"auths": {"a.example": {"auth": base64.b64encode(b"me:let:me").decode()}}},
            "a.example",
            Credentials("me", "let:me"),
        ),
        (
            {"auths": {"https://index.docker.io/v1/": {"username": "me", "password": "x"}}},
            "docker.io",
            Credentials("me", "x"),
        ),
        ({"auths": {"https://a.example": {"identitytoken": "t"}}}, "a.example", Credentials("", "t")),
        ({"auths": {"a.example": {}}}, "a.example", None),
        ({"auths": {"b.example": {"username": "me", "password": "x"}}}, "a.example", None),
        ({}, "a.example", None),
        ("", "a.example", None),
        (" \n", "a.example", None),
        ("null", "a.example", None),
        ({"auths": None, "credHelpers": None, "credsStore": None}, "a.example", None),
        ({"credHelpers": {"a.example": None, "b.example": ""}}, "a.example", None),
        ({"auths": {"a.example": None}}, "a.example", None),
        ({"auths": {"a.example": {"auth": None, "identitytoken": None, "username": None}}}, "a.example", None),
        (
            {"auths": {"a.example": {"auth": None, "username": "me", "password": None}}},
            "a.example",
            Credentials("me", ""),
        ),
        ({"auths": {"a.example": {"auth": "bWU6\nbGV0\r\nbWU=\n"}}}, "a.example", Credentials("me", "letme")),
        ({"auths": {"a.example": {"auth": packed(b"me:x\0\0")}}}, "a.example", Credentials("me", "x")),
        ({"auths": {"a.example": {"auth": packed(b"me:\xff")}}}, "a.example", Credentials("me", "\udcff")),
        ({"auths": {"a.example": {"auth": packed(b"me:")}}}, "a.example", Credentials("me", "")),
        ({"auths": {"https://a.example/some/path": {"auth": packed(b"me:x")}}}, "a.example", Credentials("me", "x")),
        ({"auths": {"a.example:5000": {"auth": packed(b"me:x")}}}, "a.example", None),
        (
            {"auths": {"b.example": {"auth": 7}, "a.example": {"auth": packed(b"me:x")}}},
            "a.example",
            Credentials("me", "x"),
        ),
        ({"auths": {"docker.io": {"auth": packed(b"me:x")}}}, "docker.io", Credentials("me", "x")),
        ({"auths": {"index.docker.io": {"auth": packed(b"me:x")}}}, "docker.io", Credentials("me", "x")),
        ({"HttpHeaders": {"X": "y"}, "psFormat": 7, "auths": {}}, "a.example", None),
    ],
)
def test_dockers_configuration(
    docker: Callable[..., dict[str, str]], config: object, host: str, found: Credentials | None
) -> None:
    assert credentials(host, docker(config)) == found


def test_a_credential_helper(docker: Callable[..., dict[str, str]]) -> None:
    found = """[ "$1 $host" = "get a.example" ] && echo '{"Username": "me", "Secret": "x"}'"""
    say = f"{found} || {{ echo credentials not found; exit 1; }}"
    environment = docker({"credHelpers": {"a.example": "tests"}, "credsStore": "tests"}, say)
    assert credentials("a.example", environment) == ("me", "x")
    assert credentials("b.example", environment) is None
    assert "x" not in repr(credentials("a.example", environment)).replace("example", "")


@pytest.mark.parametrize(
    ("config", "helper", "said"),
    [
        ("{", "", "is not JSON: Expecting property name enclosed in double quotes in line 1"),
        ("[]", "", "must be an object of JSON"),
        ('"text"', "", "must be an object of JSON"),
        ("<html>", "", "is not JSON"),
        ("[" * 100_000, "", "is nested too deeply"),
        ('{"auths": ' * 100_000, "", "is nested too deeply"),
        ("1" * 5000, "", "is not JSON"),
        (" " * ((4 << 20) + 1), "", "has more than"),
        ({"auths": []}, "", "must have an object as 'auths'"),
        ({"auths": "x"}, "", "must have an object as 'auths'"),
        ({"auths": {"a.example": []}}, "", "must have an object as 'auths.a.example'"),
        ({"auths": {"a.example": {"auth": "?"}}}, "", "must have base64 as 'auths.a.example.auth'"),
        ({"auths": {"a.example": {"auth": "bWU6eA"}}}, "", "must have base64"),
        ({"auths": {"a.example": {"auth": "b W U 6"}}}, "", "must have base64"),
        ({"auths": {"a.example": {"auth": packed(b"no-colon")}}}, "", "must have USER:PASSWORD in base64"),
        ({"auths": {"a.example": {"auth": packed(b":password")}}}, "", "must have USER:PASSWORD in base64"),
        ({"auths": {"a.example": {"auth": 7}}}, "", "must have a text as 'auths.a.example.auth'"),
        ({"auths": {"a.example": {"auth": "é"}}}, "", "must have base64"),
        ({"auths": {"a.example": {"identitytoken": ["x"]}}}, "", "must have a text as 'auths.a.example.identitytoken'"),
        ({"auths": {"a.example": {"identitytoken": "\ud800"}}}, "", "must have a text of Unicode"),
        ({"auths": {"a.example": {"username": "me", "password": {}}}}, "", "must have a text as"),
        ({"credHelpers": ["tests"]}, "", "must have an object as 'credHelpers'"),
        ({"credHelpers": {"a.example": 7}}, "", "must have a text as 'credHelpers.a.example'"),
        ({"credsStore": {}}, "", "must have a text as 'credsStore'"),
        ({"credsStore": "../../bin/sh"}, "", "names the credential helper '../../bin/sh'"),
        ({"credsStore": "a\0b"}, "", "names the credential helper"),
        ({"credsStore": "tests"}, "echo '\\xff\\xfe'; exit 1", "docker-credential-tests failed"),
        ({"credsStore": "tests"}, "exit 1", "failed for a.example: exit code 1"),
        ({"credsStore": "tests"}, "kill -9 $$", "failed for a.example: exit code -9"),
        (
            {"credsStore": "tests"},
            "echo gpg: command not found; exit 127",
            "failed for a.example: gpg: command not found",
        ),
        ({"credsStore": "tests"}, """echo '{"Username": null, "Secret": "x"}'""", "gave no credentials"),
        ({"credsStore": "tests"}, """echo '{"Username": "me", "Secret": ["x"]}'""", "gave no credentials"),
        ({"credsStore": "tests"}, """echo '{"Username": "me", "Secret": "\\ud800"}'""", "gave no credentials"),
        ({"credsStore": "tests"}, "printf '%0100000d' 0 | tr 0 '['", "gave no credentials"),
        ({"credsStore": "tests"}, "exec yes", "did not end in 0.5 s"),
        ({"credsStore": "tests"}, "exec sleep 60", "did not end in 0.5 s"),
        ({"credsStore": "not-there"}, "", "docker-credential-not-there cannot be run"),
        ({"credsStore": "tests"}, "echo locked; exit 1", "docker-credential-tests failed for a.example: locked"),
        ({"credsStore": "tests"}, "echo {}", "docker-credential-tests gave no credentials for a.example"),
    ],
)
def test_a_configuration_that_makes_no_sense(
    docker: Callable[..., dict[str, str]],
    config: object,
    helper: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "0.5 s" in said:
        monkeypatch.setattr(docker_auth, "_PATIENCE", 0.5)
    with pytest.raises(UsageError, match=re.escape(said)):
        credentials("a.example", docker(config, helper))


def test_a_helper_that_leaves_a_process_behind(docker: Callable[..., dict[str, str]]) -> None:
    """As one that starts an agent, which keeps the pipes open: the helper's own end counts."""
    say = """sleep 60 & echo $! > "$DOCKER_CONFIG/agent"; echo '{"Username": "me", "Secret": "x"}'"""
    environment = docker({"credsStore": "tests"}, say)
    try:
        assert credentials("a.example", environment) == ("me", "x")
    finally:
        os.kill(int((Path(environment["DOCKER_CONFIG"]) / "agent").read_text()), 9)


def test_warnings_of_a_helper_do_not_spoil_its_answer(docker: Callable[..., dict[str, str]]) -> None:
    say = """echo a warning >&2; echo '{"Username": "<token>", "Secret": "x"}'"""
    assert credentials("a.example", docker({"credsStore": "tests"}, say)) == ("", "x")


@pytest.mark.parametrize("what", ["FIFO", "folder", "nothing", "a file as folder", "unreadable"])
def test_what_is_no_file(tmp_path: Path, what: str) -> None:
    environment = {"DOCKER_CONFIG": str(tmp_path)}
    path = tmp_path / "config.json"
    if what == "FIFO":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    elif what == "a file as folder":
        path.write_text("")
        environment = {"DOCKER_CONFIG": str(path)}
    elif what == "unreadable":
        path.symlink_to(path)
    if what in ("nothing", "a file as folder"):
        assert credentials("a.example", environment) is None
        return
    with pytest.raises(UsageError, match="cannot be read"):
        credentials("a.example", environment)


def test_the_current_folder_is_no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without HOME, the configuration is that of the user, and not one that another user wrote to this folder."""
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker/config.json").write_text("{")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert credentials("a.example", {}) is None


def test_no_error_has_a_secret(docker: Callable[..., dict[str, str]]) -> None:
    entry = {"identitytoken": 7, "auth": packed(b"s3cr3t"), "password": "s3cr3t", "username": "me"}
    with pytest.raises(UsageError) as caught:
        credentials("a.example", docker({"auths": {"a.example": entry}}))
    assert "s3cr3t" not in str(caught.value)


HOSTS = st.sampled_from(["a.example", "https://a.example/v1/", "b.example", "", "http://", "a.example:5000"])
TEXTS = st.one_of(st.text(max_size=20), st.sampled_from(["bWU6eA==", "bWU6\neA==", "?", "<token>", "\ud800", "\0"]))
SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), TEXTS, st.lists(st.none(), max_size=1)
)
ENTRIES = st.one_of(
    SCALARS,
    st.dictionaries(st.sampled_from(["auth", "identitytoken", "username", "password", "x"]), SCALARS, max_size=4),
)
CONFIGS = st.one_of(
    SCALARS,
    st.fixed_dictionaries(
        {},
        optional={
            "auths": st.one_of(SCALARS, st.dictionaries(HOSTS, ENTRIES, max_size=3)),
            "credHelpers": st.one_of(
                SCALARS, st.dictionaries(HOSTS, st.sampled_from([None, "", 7, [], {}]), max_size=2)
            ),
            "credsStore": st.sampled_from([None, "", 7, [], "a/b", "\0"]),
        },
    ),
)


@settings(max_examples=rounds(200))
@given(st.one_of(CONFIGS.map(lambda config: json.dumps(config).encode()), st.binary(max_size=60)), st.data())
def test_any_configuration_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, draw: st.DataObject
) -> None:
    for _ in range(draw.draw(st.integers(0, 2))):
        at = draw.draw(st.integers(0, len(data)))
        data = data[:at] + draw.draw(st.binary(max_size=3)) + data[at + draw.draw(st.integers(0, 3)) :]
    folder = tmp_path_factory.getbasetemp() / "fuzz"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_bytes(data)
    try:
        found = credentials("a.example", {"DOCKER_CONFIG": str(folder), "PATH": ""})
    except UsageError as error:
        assert "docker-config" in error.reason
        return
    assert found is None or basic(found).startswith("Basic ")
