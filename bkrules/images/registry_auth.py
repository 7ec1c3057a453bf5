"""Authentication to registries: challenges, Docker's credentials, and tokens.

https://distribution.github.io/distribution/spec/auth/token/ and /oauth/
"""

from __future__ import annotations

import base64
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

from bkrules.errors import ActionFailed
from bkrules.images.docker_auth import Credentials
from bkrules.images.json_object import read_json
from bkrules.web.client import HttpClient, origin
from bkrules.web.errors import HttpError, Unreachable
from bkrules.web.headers import challenges
from bkrules.web.limits import Limits

if TYPE_CHECKING:
    from bkrules.web.headers import Challenge

MOST_TOKEN = 1 << 20
"""The limit in bytes of a token server's answer."""
_TOKEN = re.compile(r"[\x21-\x7e]+")
_LIMITS = Limits(connect=10, idle=30, total=60)
_OK = 200


class AuthenticationFailed(Exception):
    """A challenge cannot be met. The text is the reason."""


class Authorizer:
    """The values of the header Authorization for the repositories of one registry. Safe for several threads."""

    def __init__(self, host: str, client: HttpClient, find: Callable[[str], Credentials | None]) -> None:
        self._host, self._client, self._find = host, client, find
        self._headers: dict[str, str] = {}
        self._lock = threading.Lock()

    def header(self, repository: str) -> str:
        """Return the header for a repository, or an empty text while none is needed."""
        return self._headers.get(repository, "")

    def answer(self, repository: str, base: str, values: Iterable[str], used: str, *, push: bool) -> None:
        """Answer the challenges in the WWW-Authenticate headers of a 401; `used` is the header that was not sufficient.

        bk asks for a token before it sends a password, as Docker does. Raises AuthenticationFailed, or UsageError for Docker's
        configuration.
        """
        with self._lock:
            if self.header(repository) != used:
                return  # another thread has done this already
            known = self._find(self._host)
            asked = challenges(values)
            problem = f"authentication required, and no credentials found for {self._host}"
            for challenge in sorted(asked, key=lambda one: one.scheme != "bearer"):
                if challenge.scheme == "bearer" and "realm" in challenge.parameters:
                    try:
                        token = self._token(repository, base, challenge, known, push)
                    except AuthenticationFailed as error:
                        problem = str(error)
                        continue
                    self._headers[repository] = f"Bearer {token}"
                    return
                if challenge.scheme == "basic" and known is not None and known.user:
                    self._headers[repository] = basic(known)
                    return
            raise AuthenticationFailed(problem)

    def _token(self, repository: str, base: str, challenge: Challenge, known: Credentials | None, push: bool) -> str:
        """Return the token of a challenge's server for credentials, or an anonymous one. Raises AuthenticationFailed."""
        parameters = challenge.parameters
        realm = parameters["realm"]
        try:
            check_realm(realm, base)
            return self._asked(realm, _query(repository, parameters, push), known)
        except (HttpError, ActionFailed, LookupError) as error:
            raise AuthenticationFailed(f"no token from {_shown(realm)}: {error}") from error

    def _asked(self, realm: str, query: list[tuple[str, str]], known: Credentials | None) -> str:
        if known is not None and not known.user:
            form = [*query, ("grant_type", "refresh_token"), ("refresh_token", known.password), ("client_id", "bk")]
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            response = self._client.request(
                "POST", realm, headers, urlencode(form, errors="surrogateescape").encode(), _LIMITS
            )
        else:
            url = f"{realm}{'&' if urlsplit(realm).query else '?'}{urlencode(query)}"
            secret = {"Authorization": basic(known)} if known else {}
            response = self._client.request("GET", url, limits=_LIMITS, secret=secret, redirects=True)
        with response:
            if response.status != _OK:
                raise LookupError(f"{response.status} {response.reason}")
            data = response.read(MOST_TOKEN)
        return token_of(data)


def check_realm(realm: str, base: str) -> None:
    """Raise Unreachable for a token server without TLS, unless it and the registry are on this machine."""
    if origin(realm).scheme == "https":
        return
    if not (_is_here(realm) and _is_here(base)):
        raise Unreachable("it does not use https, so others could read the credentials")


def token_of(data: bytes) -> str:
    """Return the token in the answer of a token server. Raises ActionFailed or LookupError."""
    document = read_json(data, "its answer")
    if not isinstance(document, dict):
        raise LookupError("its answer is not an object")
    token = document.get("token") or document.get("access_token")
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise LookupError("its answer contains no token")
    return token


def basic(known: Credentials) -> str:
    """Return the header for a user and a password of any bytes."""
    pair = f"{known.user}:{known.password}".encode("utf-8", "surrogateescape")
    return f"Basic {base64.b64encode(pair).decode()}"


def _query(repository: str, parameters: Mapping[str, str], push: bool) -> list[tuple[str, str]]:
    scopes = parameters.get("scope") or f"repository:{repository}:pull{',push' if push else ''}"
    service = parameters.get("service")
    return [*(("scope", scope) for scope in scopes.split()), *([("service", service)] if service else [])]


def _is_here(url: str) -> bool:
    import ipaddress

    host = origin(url).host
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _shown(realm: str) -> str:
    """Return a realm for an error: on one line, without a user or a query, which may contain secrets."""
    place = realm.partition("?")[0]
    scheme, mark, rest = place.partition("://")
    return repr(f"{scheme}{mark}{rest.rpartition('@')[2]}"[:200])
