"""The secrets that must not get into a file."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from bkrules.cache.remote_options import RemoteOptions
from bkrules.repro import secrets


def test_the_secrets_of_an_environment(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps(
            {
                "auths": {
                    "r.example": {"auth": base64.b64encode(b"me:docker-pass").decode(), "identitytoken": "ident-token"}
                }
            }
        )
    )
    environment = {
        "GITHUB_TOKEN": "ghp_0123456789",
        "AWS_SECRET_ACCESS_KEY": "aws-secret-value",
        "HTTPS_PROXY": "http://me:proxy%2Fpass@proxy.example:3128",
        "SSH_AUTH_SOCK": str(tmp_path),
        "BK_REMOTE_HEADER": "Authorization: Bearer remote-bearer",
        "PATH": "/usr/bin",
        "PASSWORD": "short",
        "GIT_AUTHOR_NAME": "Jane Author",
        "SIGNING_KEY": 'quoted"key',
        "DOCKER_CONFIG": str(tmp_path),
    }
    remote = RemoteOptions("https://me:cache-pass@cache.example", (("x-key", "header-value"),))
    found = secrets.known(environment, remote)
    for value in (
        *("ghp_0123456789", "aws-secret-value", "proxy/pass", "proxy%2Fpass", "remote-bearer"),
        *("cache-pass", "header-value", "docker-pass", "ident-token", 'quoted"key', 'quoted\\"key'),
    ):
        assert value.encode() in found, value
    for value in ("/usr/bin", "short", "Jane Author", str(tmp_path)):
        assert value.encode() not in found, value


def test_a_secret_is_found_across_chunks() -> None:
    known = {b"secret-value": "TOKEN", b"other-value-that-is-longer": "KEY"}
    assert secrets.found_in([b"begin sec", b"ret-val", b"ue end"], known) == "TOKEN"
    assert secrets.found_in([b"begin sec", b"ret-valu", b" end"], known) == ""
    assert secrets.found_in([b"secret-value"], {}) == ""


def test_a_secret_is_masked() -> None:
    known = {b"secret": "A", b"secret-longer": "B"}
    assert secrets.masked(b"a secret-longer and a secret", known) == b"a *** and a ***"
