"""The secrets of the user, which must not get into a file that strangers read.

bk looks for their values in all that it would write: those of variables with telling names, of the credentials in URLs, of
headers of the remote cache, and of Docker's configuration.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from urllib.parse import unquote

from bkrules.cache.remote_options import RemoteOptions
from bkrules.system.files import read_regular

SHORTEST = 6
"""The least number of bytes of a secret. A shorter one is found in any file."""
MASK = b"***"
_SHORTEST_VARIABLE = 4
_TELLING = re.compile(
    r"token|secret|passw|passphrase|credential|auth(?!or)|cookie|header|api_?key|(?:^|_)(?:key|pwd)(?:$|_)", re.I
)
_IN_URL = re.compile(r"://([^/\s:@]*):([^/\s@]+)@")
_MOST = 4 << 20

Secrets = Mapping[bytes, str]
"""The name of each secret, such as that of its variable, by its value."""


def known(environment: Mapping[str, str], remote: RemoteOptions | None = None) -> Secrets:
    """Return the secrets of an environment, and of a remote cache."""
    found: dict[str, str] = {}
    for name, value in environment.items():
        if _TELLING.search(name) and not os.path.exists(value):  # as SSH_AUTH_SOCK, which is a path
            found.setdefault(value, name)
        for part in in_url(value):
            found.setdefault(part, name)
    if remote is not None:
        for part in in_url(remote.url):
            found.setdefault(part, "--remote_cache")
        for name, value in remote.headers:
            found.setdefault(value, f"--remote_header={name}")
    for value in _of_docker(environment):
        found.setdefault(value, "Docker's configuration")
    words = {word: name for value, name in found.items() for word in _forms(value)}
    return {word: name for word, name in words.items() if len(word) >= SHORTEST}


def of_variables(variables: Mapping[str, str]) -> Secrets:
    """Return the values of `--test_env` as secrets, whatever their names, but for those that are too short to be one."""
    long = {name: value for name, value in variables.items() if len(value) >= _SHORTEST_VARIABLE}
    return {
        form: name for name, value in long.items() for form in (os.fsencode(value), json.dumps(value)[1:-1].encode())
    }


def _forms(value: str) -> Iterator[bytes]:
    """Yield a value, also as JSON has it, and the secret alone of `Bearer SECRET` or `Authorization: Basic SECRET`."""
    for text in (value, *([value.rpartition(" ")[2]] if value.count(" ") in (1, 2) else [])):
        yield os.fsencode(text)
        yield json.dumps(text)[1:-1].encode()


def is_telling(name: str) -> bool:
    """Return whether a variable of this name has a secret, by the words of its name."""
    return bool(_TELLING.search(name))


def without_credentials(text: str) -> str:
    """Return a text with a mask in the place of the credentials of URLs."""
    return _IN_URL.sub("://***@", text)


def in_url(text: str) -> Iterator[str]:
    """Yield the passwords of the URLs in a text."""
    for _, password in _IN_URL.findall(text):
        yield password
        yield unquote(password)


def _of_docker(environment: Mapping[str, str]) -> Iterator[str]:
    """Yield the secrets in Docker's configuration file: passwords, and tokens."""
    folder = environment.get("DOCKER_CONFIG") or f"{environment.get('HOME', '')}/.docker"
    entries: object = None
    with suppress(OSError, ValueError, RecursionError, AttributeError):
        entries = json.loads(read_regular(f"{folder}/config.json", _MOST)).get("auths")
    for entry in entries.values() if isinstance(entries, dict) else ():
        for name, value in entry.items() if isinstance(entry, dict) else ():
            if name in ("auth", "identitytoken", "registrytoken", "password") and isinstance(value, str):
                yield value
                with suppress(ValueError):
                    plain = base64.b64decode(value, validate=True).decode()
                    yield plain.partition(":")[2] if name == "auth" else plain


def found_in(chunks: Iterable[bytes], secrets: Secrets) -> str:
    """Return the name of a secret that is in these bytes; empty when none is."""
    longest = max(map(len, secrets), default=0)
    tail = b""
    for chunk in chunks if secrets else ():
        window = tail + chunk
        for value, name in secrets.items():
            if value in window:
                return name
        tail = window[-(longest - 1) :]
    return ""


def masked_text(text: str, secrets: Secrets) -> str:
    """Return a text with a mask in the place of each secret."""
    return masked(text.encode(errors="surrogateescape"), secrets).decode(errors="replace")


def masked(data: bytes, secrets: Secrets) -> bytes:
    """Return bytes with a mask in the place of each secret."""
    for value in sorted(secrets, key=len, reverse=True):
        data = data.replace(value, MASK)
    return data
