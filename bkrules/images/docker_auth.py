"""Credentials of registries from Docker's configuration file, as Docker reads it.

https://github.com/docker/cli/tree/v29.0.0/cli/config
"""

from __future__ import annotations

import base64
import json
import os
import selectors
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

from bkrules.errors import UsageError
from bkrules.images.protocol import HUB
from bkrules.system.files import open_regular

MOST = 4 << 20
"""The limit in bytes of the file, and of a helper's answer."""
_HUB_KEY = "https://index.docker.io/v1/"
_TOKEN_USER = "<token>"
_NOT_FOUND = "credentials not found"
_PATIENCE = 30.0  # seconds for a helper, which may ask the user


class Credentials(NamedTuple):
    """A user and a password. With an empty user, the password is an identity token.

    Bytes that are not UTF-8 are surrogates in them.
    """

    user: str
    password: str

    def __repr__(self) -> str:
        return f"Credentials({self.user!r}, ...)"


def credentials(host: str, environment: Mapping[str, str] = os.environ) -> Credentials | None:
    """Return a registry's credentials in Docker's configuration: from its own helper, the common helper, or `auths`, in
    this order.

    The file is `config.json` in `$DOCKER_CONFIG` or `~/.docker`; an empty file has none, and null counts as absent.
    Raises UsageError, which names the field, when the file or a helper's answer is malformed.
    """
    home = environment.get("HOME") or os.path.expanduser("~")
    path = Path(environment.get("DOCKER_CONFIG") or os.path.join(home, ".docker"), "config.json")
    config = _File(path, _read(path))
    key = _HUB_KEY if host == HUB else host
    helper = config.text(config.object("credHelpers"), host, "credHelpers.") or config.text(config.top, "credsStore")
    if helper and (found := _ask(path, helper, key, environment)) is not None:
        return found
    return config.entry(key, host)


class _File:
    """The file's content. An error names the field, and never its value, which may be a secret."""

    def __init__(self, path: Path, data: bytes) -> None:
        self._path = path
        self.top: dict[str, Any] = {}
        if not data.strip():
            return
        try:
            top = json.loads(data.decode("utf-8", "surrogateescape"))
        except RecursionError:
            raise self._wrong("is nested too deeply") from None
        except ValueError as error:
            where = f": {error.msg} in line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
            raise self._wrong(f"is not JSON{where}") from None
        if top is not None and not isinstance(top, dict):
            raise self._wrong("must be an object of JSON")
        self.top = top or {}

    def object(self, name: str) -> dict[str, Any]:
        """Return an object, empty when it is absent."""
        found = self.top.get(name)
        if found is not None and not isinstance(found, dict):
            raise self._wrong(f"must have an object as {name!r}")
        return found or {}

    def text(self, holder: Mapping[str, Any], name: str, where: str = "") -> str:
        """Return a text, empty when it is absent."""
        found = holder.get(name)
        if found is not None and not isinstance(found, str):
            raise self._wrong(f"must have a text as {where + name!r}")
        if found and not _is_text(found):
            raise self._wrong(f"must have a text of Unicode as {where + name!r}")
        return found or ""

    def entry(self, key: str, host: str) -> Credentials | None:
        """Return the credentials in `auths`: under the registry's own name, or under the first address on that host."""
        auths = self.object("auths")
        names = [key, host, *(name for name in auths if _host_of(name) in (host, _host_of(key)))]
        name = next((name for name in names if name in auths), None)
        if name is None or auths[name] is None:
            return None
        entry = auths[name]
        where = f"auths.{name}."
        if not isinstance(entry, dict):
            raise self._wrong(f"must have an object as {where[:-1]!r}")
        if token := self.text(entry, "identitytoken", where):
            return Credentials("", token)
        if packed := self.text(entry, "auth", where):
            return self._unpacked(packed, f"{where}auth")
        user = self.text(entry, "username", where)
        return Credentials(user, self.text(entry, "password", where)) if user else None

    def _unpacked(self, packed: str, where: str) -> Credentials:
        """Return the user and the password in base64, which may contain line breaks."""
        try:
            data = base64.b64decode(packed.replace("\r", "").replace("\n", ""), validate=True)
        except ValueError:
            raise self._wrong(f"must have base64 as {where!r}") from None
        user, colon, password = data.decode("utf-8", "surrogateescape").partition(":")
        if not colon or not user:
            raise self._wrong(f"must have USER:PASSWORD in base64 as {where!r}")
        return Credentials(user, password.strip("\0"))

    def _wrong(self, problem: str) -> UsageError:
        hint = "log in again with docker login, or name another folder in DOCKER_CONFIG"
        return UsageError("docker-config", f"Docker's configuration {self._path} {problem}"[:500], hint=hint)


def _read(path: Path) -> bytes:
    """Return the bytes of the file, empty when it does not exist. Raises UsageError when it is not a regular file, or too large."""
    try:
        with open_regular(path) as file:
            data = file.read(MOST + 1)
    except (FileNotFoundError, NotADirectoryError):
        return b""
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or error
        raise UsageError("docker-config", f"Docker's configuration {path} cannot be read: {problem}") from error
    if len(data) > MOST:
        raise UsageError("docker-config", f"Docker's configuration {path} has more than {MOST} bytes")
    return data


def _is_text(text: str) -> bool:
    """Return whether a text can be encoded: JSON may contain lone surrogates."""
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def _host_of(name: str) -> str:
    """Return the host of a key of `auths`, which older clients write as an address."""
    return name.removeprefix("https://").removeprefix("http://").partition("/")[0]


def _ask(path: Path, helper: str, key: str, environment: Mapping[str, str]) -> Credentials | None:
    """Return a credential helper's answer for a registry; None when it has none. Raises UsageError."""
    command = f"docker-credential-{helper}"
    if "/" in helper or "\0" in helper:
        reason = (
            f"Docker's configuration {path} names the credential helper {helper[:100]!r}, which is not a valid name"
        )
        raise UsageError("docker-config", reason)
    status, data = _run(command, key, environment)
    text = data.decode(errors="replace").strip()
    if status:
        if _NOT_FOUND in text:
            return None
        raise UsageError("docker-config", f"{command} failed for {key}: {text[:500] or f'exit code {status}'}")
    try:
        found = json.loads(text)
        user, secret = found["Username"], found["Secret"]
        if not (isinstance(user, str) and isinstance(secret, str) and _is_text(user + secret)):
            raise TypeError
    except (ValueError, LookupError, TypeError, RecursionError):
        raise UsageError("docker-config", f"{command} gave no credentials for {key}") from None
    if not secret:
        return None
    return Credentials("" if user == _TOKEN_USER else user, secret)


def _run(command: str, key: str, environment: Mapping[str, str]) -> tuple[int, bytes]:
    """Return the exit code of a helper and its output on stdout, or on stderr after a failure. Raises UsageError.

    Only the end of the helper counts: a process that it leaves behind may keep the pipes open.
    """
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen([command, "get"], stdin=pipe, stdout=pipe, stderr=pipe, env=dict(environment))
    except (OSError, ValueError) as error:
        raise UsageError("docker-config", f"the credential helper {command} cannot be run: {error}") from error
    with process:
        assert process.stdin and process.stdout and process.stderr
        try:
            with suppress(OSError):
                process.stdin.write(key.encode())
                process.stdin.close()
            outputs = _printed(process, process.stdout, process.stderr)
            if outputs is None:
                hint = "does it wait for a password to be typed?"
                raise UsageError("docker-config", f"{command} did not end in {_PATIENCE:g} s", hint=hint)
            status = process.wait()
            return status, outputs[0] or outputs[1] if status else outputs[0]
        finally:
            if process.poll() is None:
                process.kill()


def _printed(process: subprocess.Popen[bytes], *pipes: IO[bytes]) -> list[bytes] | None:
    """Return the output of a process on each pipe until it ends; None when it does not end in time, or prints more than MOST."""
    until = time.monotonic() + _PATIENCE
    found = {pipe.fileno(): b"" for pipe in pipes}
    end = os.pidfd_open(process.pid)
    try:
        with selectors.DefaultSelector() as waiting:
            for number in (*found, end):
                os.set_blocking(number, False)
                waiting.register(number, selectors.EVENT_READ)
            ended = False
            while not ended:
                ready = {key.fd for key, _ in waiting.select(max(0.0, until - time.monotonic()))}
                if not ready or any(len(data) > MOST for data in found.values()):
                    return None
                ended = end in ready
                for number in found:
                    while piece := _piece(number):
                        found[number] += piece
                        if len(found[number]) > MOST:
                            break
                    if piece == b"" and not ended and number in waiting.get_map():
                        waiting.unregister(number)
        return list(found.values())
    finally:
        os.close(end)


def _piece(number: int) -> bytes | None:
    try:
        return os.read(number, 1 << 16)
    except BlockingIOError:
        return None
