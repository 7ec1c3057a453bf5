"""Credentials of registries from Docker's configuration file, as Docker reads it."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from bkrules.errors import UsageError
from bkrules.images.protocol import HUB

_HUB_KEY = "https://index.docker.io/v1/"
_TOKEN_USER = "<token>"


class Credentials(NamedTuple):
    """A user and a password. With an empty user, the password is an identity token."""

    user: str
    password: str

    def __repr__(self) -> str:
        return f"Credentials({self.user!r}, ...)"


def credentials(host: str, environment: Mapping[str, str] = os.environ) -> Credentials | None:
    """What Docker's configuration says for a registry: its own helper, the common one, or `auths`, in this order.

    The file is `config.json` in `$DOCKER_CONFIG` or `~/.docker`. Raises UsageError when the file or a helper makes no sense.
    """
    folder = environment.get("DOCKER_CONFIG") or os.path.join(environment.get("HOME", ""), ".docker")
    path = Path(folder, "config.json")
    try:
        config = json.loads(path.read_bytes())
        helper = config.get("credHelpers", {}).get(host) or config.get("credsStore")
        auths = config.get("auths", {})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError("docker-config", f"{path} cannot be read: {error}") from error
    key = _HUB_KEY if host == HUB else host
    if helper and (found := _ask(helper, key, environment)) is not None:
        return found
    for name in (key, host, f"https://{host}", f"http://{host}", f"https://{host}/v1/", f"https://{host}/v2/"):
        if name in auths:
            return _entry(auths[name], path, name)
    return None


def _entry(entry: Any, path: Path, name: str) -> Credentials | None:
    try:
        if entry.get("identitytoken"):
            return Credentials("", entry["identitytoken"])
        if entry.get("auth"):
            user, _, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
            return Credentials(user, password.rstrip("\0"))
        return Credentials(entry["username"], entry["password"]) if entry.get("username") else None
    except (AttributeError, ValueError, KeyError) as error:
        raise UsageError("docker-config", f"{path}: the entry of {name} makes no sense") from error


def _ask(helper: str, key: str, environment: Mapping[str, str]) -> Credentials | None:
    """What a credential helper has for a registry; None when it has nothing."""
    command = f"docker-credential-{helper}"
    try:
        done = subprocess.run(
            [command, "get"], input=key, capture_output=True, text=True, env=dict(environment), timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError("docker-config", f"the credential helper {command} cannot be run: {error}") from error
    if done.returncode:
        if "not found" in done.stdout + done.stderr:
            return None
        raise UsageError("docker-config", f"{command} failed for {key}: {(done.stdout or done.stderr).strip()}")
    try:
        found = json.loads(done.stdout)
        user = "" if found["Username"] == _TOKEN_USER else found["Username"]
        return Credentials(user, found["Secret"])
    except (ValueError, LookupError, TypeError) as error:
        raise UsageError("docker-config", f"{command} gave no credentials for {key}") from error
