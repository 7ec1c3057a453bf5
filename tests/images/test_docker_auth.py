"""Docker's configuration file, with its helpers."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bkrules.errors import UsageError
from bkrules.images.docker_auth import Credentials, credentials


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
        ("{", "", "cannot be read"),
        ({"auths": {"a.example": {"auth": "?"}}}, "", "the entry of a.example makes no sense"),
        ({"credsStore": "not-there"}, "", "docker-credential-not-there cannot be run"),
        ({"credsStore": "tests"}, "echo locked; exit 1", "docker-credential-tests failed for a.example: locked"),
        ({"credsStore": "tests"}, "echo {}", "docker-credential-tests gave no credentials for a.example"),
    ],
)
def test_a_configuration_that_makes_no_sense(
    docker: Callable[..., dict[str, str]], config: object, helper: str, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        credentials("a.example", docker(config, helper))
