"""A client of the OCI distribution protocol: manifests and blobs by their digests, there and back.

https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

from bkrules.errors import ActionFailed
from bkrules.images.digests import ImageDigest
from bkrules.images.docker_auth import Credentials, credentials
from bkrules.images.documents import INDEXES, MANIFEST_LIMIT, Manifest, joined_index, read_index, read_manifest
from bkrules.images.protocol import ACCEPT, authorities, is_loopback, referrers_tag, server, written

_AGAIN = (408, 429, 500, 502, 503, 504)
_TRIES = 5
_FIRST_WAIT = 0.1
_LONGEST_WAIT = 30.0
_TIMEOUT = (10.0, 60.0)  # to connect, and between two pieces of a body
_PIECE = 1 << 20
_PAGES = 100


@dataclass(frozen=True)
class _Body:
    """What requests streams with a Content-Length."""

    size: int
    chunks: Callable[[], Iterable[bytes]]

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.chunks())


class RegistryClient:
    """One registry. Safe for several threads.

    A registry on the loopback may speak plain HTTP, as with Docker. Authorities to trust are those of REQUESTS_CA_BUNDLE or
    SSL_CERT_FILE, or the public ones. What is asked for is retried when the registry is busy or a connection ends.
    """

    def __init__(self, host: str, find: Callable[[str], Credentials | None] = credentials) -> None:
        self.host = host
        self._find = find
        self._session = requests.Session()
        # said with each request, or CURL_CA_BUNDLE would go before it
        self._verify = authorities() or True
        self._session.auth = _as_it_is  # or requests would take credentials from ~/.netrc
        self._session.mount("http://", HTTPAdapter(pool_maxsize=16))
        self._session.mount("https://", HTTPAdapter(pool_maxsize=16))
        self._base = "" if is_loopback(host) else f"https://{server(host)}"
        self._tokens: dict[str, str] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close its connections."""
        self._session.close()

    def digest(self, repository: str, tag: str) -> str:
        """The digest that a tag has now. Raises ActionFailed."""
        answer = self._ask("HEAD", repository, f"manifests/{tag}", {"Accept": ACCEPT})
        return answer.headers.get("Docker-Content-Digest") or self.manifest(repository, tag).digest

    def has(self, repository: str, path: str) -> str:
        """The digest of `manifests/TAG` or `blobs/DIGEST` when the registry has it, or nothing. Raises ActionFailed."""
        answer = self._ask("HEAD", repository, path, {"Accept": ACCEPT}, expected=(404,))
        return answer.headers.get("Docker-Content-Digest", path) if answer.status_code != 404 else ""

    def manifest(self, repository: str, reference: str) -> Manifest:
        """The manifest of a tag or a digest. Raises ActionFailed when there is none, or when its bytes are others."""
        answer, data = self._document(repository, f"manifests/{reference}", ACCEPT)
        expected = reference if ":" in reference else answer.headers.get("Docker-Content-Digest", "")
        return read_manifest(data, written(self.host, repository, reference), expected)

    def referrers(self, repository: str, digest: ImageDigest) -> Manifest | None:
        """The index of what refers to a manifest, of the registry or of the tag that stands for it; None when nothing does.

        https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#listing-referrers. Raises ActionFailed.
        """
        where = f"{written(self.host, repository, digest)}: its referrers"
        path: str | Callable[[], str] = f"referrers/{digest}"
        entries: list[Mapping[str, Any]] = []
        for _ in range(_PAGES):
            answer, data = self._document(repository, path, INDEXES[0], expected=(400, 404, 405))
            if answer.status_code >= 300:
                tag = f"manifests/{referrers_tag(digest)}"
                answer, data = self._document(repository, tag, INDEXES[0], expected=(404,))
                return read_index(data, where) if answer.status_code < 300 else None
            index = read_index(data, where)
            entries += (entry.raw for entry in index.entries)
            following = answer.links.get("next", {}).get("url")
            if not following:
                return index if len(entries) == len(index.entries) else joined_index(entries, where)
            path = partial(urljoin, answer.url, following)
        raise self._error(repository, f"the referrers of {digest} have more than {_PAGES} pages")

    def _document(
        self, repository: str, path: str | Callable[[], str], accept: str, expected: Collection[int] = ()
    ) -> tuple[requests.Response, bytes]:
        """An answer with its bytes, or of what is larger than a manifest only the beginning."""
        for attempt in range(_TRIES):
            with self._ask("GET", repository, path, {"Accept": accept}, stream=True, expected=expected) as answer:
                try:
                    return answer, answer.raw.read(MANIFEST_LIMIT + 1, decode_content=True)
                except (HTTPError, OSError) as error:
                    problem = str(error)
            time.sleep(_FIRST_WAIT * 2**attempt)
        raise self._error(repository, f"{path if isinstance(path, str) else 'referrers'}: {problem}, {_TRIES} times")

    def blob(self, repository: str, digest: ImageDigest, size: int) -> Iterator[bytes]:
        """The bytes of a blob, piece by piece. A connection that ends is taken up again where it ended.

        Raises ActionFailed, at the end when the bytes are not those of the digest.
        """
        found, at, tries = hashlib.sha256(), 0, 0
        while at < size or not tries:
            tries += 1
            headers = (
                {"Range": f"bytes={at}-", "Accept-Encoding": "identity"} if at else {"Accept-Encoding": "identity"}
            )
            with self._ask("GET", repository, f"blobs/{digest}", headers, stream=True) as answer:
                skip = at if answer.status_code != 206 else 0  # a registry may not know ranges
                try:
                    while piece := answer.raw.read(_PIECE):
                        piece, skip = piece[skip:], max(0, skip - len(piece))
                        at += len(piece)
                        found.update(piece)
                        if at > size:
                            break
                        yield piece
                except (HTTPError, OSError) as error:
                    if tries >= _TRIES:
                        raise self._error(
                            repository, f"blob {digest} ended after {at} of {size} bytes: {error}"
                        ) from error
            if at < size and tries >= _TRIES:
                raise self._error(repository, f"blob {digest} ended after {at} of {size} bytes, {tries} times")
            if at < size:
                time.sleep(_FIRST_WAIT * 2 ** (tries - 1))
        if at != size or f"sha256:{found.hexdigest()}" != digest:
            raise self._error(repository, f"blob {digest} has {at} bytes with the digest sha256:{found.hexdigest()}")

    def upload(
        self, repository: str, digest: ImageDigest, size: int, chunks: Callable[[], Iterable[bytes]], origin: str = ""
    ) -> None:
        """Give the registry a blob, or let it take the blob from `origin`, another of its repositories. Raises ActionFailed."""
        wish = urlencode({"mount": digest, "from": origin}) if origin else ""
        begun = self._begin(repository, wish)
        if not begun:
            return
        places = [begun]

        def place() -> str:
            found = places.pop() if places else self._begin(repository)  # what has failed is begun anew
            return f"{found}{'&' if urlsplit(found).query else '?'}{urlencode({'digest': digest})}"

        self._ask("PUT", repository, place, {"Content-Type": "application/octet-stream"}, body=_Body(size, chunks))

    def _begin(self, repository: str, mount: str = "") -> str:
        """Where the registry wants to have a blob, or nothing when it has mounted it."""
        answer = self._ask("POST", repository, f"blobs/uploads/{'?' if mount else ''}{mount}", {})
        if mount and answer.status_code == 201:
            return ""
        return urljoin(answer.url, answer.headers.get("Location", ""))

    def put_manifest(self, repository: str, reference: str, manifest: Manifest) -> None:
        """Give the registry a manifest under a tag or its digest. Raises ActionFailed."""
        headers = {"Content-Type": manifest.media_type}
        self._ask("PUT", repository, f"manifests/{reference}", headers, body=manifest.data)

    def _ask(
        self,
        method: str,
        repository: str,
        path: str | Callable[[], str],
        headers: Mapping[str, str],
        *,
        stream: bool = False,
        body: bytes | _Body = b"",
        expected: Collection[int] = (),
    ) -> requests.Response:
        """The answer to a request, once the registry gives one; `expected` are bad ones that the caller knows what to do with.

        A path may be a function, for an address that is good for one try.
        """
        problem = ""
        authorized = False
        name = path if isinstance(path, str) else "blobs/uploads/"
        for attempt in range(_TRIES):
            url = f"{self._base or self._find_base()}/v2/{repository}/{path}" if isinstance(path, str) else path()
            token = self._tokens.get(repository) if self._is_own(url) else None
            sent = {**headers, **({"Authorization": token} if token else {})}
            try:
                answer = self._session.request(
                    method, url, headers=sent, data=body, stream=stream, timeout=_TIMEOUT, verify=self._verify
                )
            except requests.exceptions.SSLError as error:
                hint = "name its authority in SSL_CERT_FILE"
                raise self._error(repository, f"its certificate is not trusted: {error}", hint) from error
            except (requests.RequestException, OSError) as error:
                problem = str(error)
                time.sleep(_FIRST_WAIT * 2**attempt)
                continue
            if answer.status_code < 300 or answer.status_code in expected:
                return answer
            answer.close()
            if answer.status_code == 401 and not authorized:
                authorized = True
                self._authorize(repository, answer.headers.get("WWW-Authenticate", ""))
                continue
            problem = f"{answer.status_code} {answer.reason}"
            if answer.status_code not in _AGAIN:
                raise self._error(repository, f"{name}: {problem}", _hint(answer.status_code))
            time.sleep(self._wait(repository, answer, attempt))
        raise self._error(repository, f"{name}: {problem}, {_TRIES} times")

    def _is_own(self, url: str) -> bool:
        """Whether credentials may be sent there: a registry may want blobs elsewhere."""
        return urlsplit(url).netloc == urlsplit(self._base).netloc

    def _wait(self, repository: str, answer: requests.Response, attempt: int) -> float:
        """How long to wait before the next try, which the registry may say itself, in seconds."""
        said = answer.headers.get("Retry-After", "")
        wait = float(said) if said.isdecimal() else _FIRST_WAIT * 2**attempt
        if wait > _LONGEST_WAIT:
            raise self._error(
                repository, f"it is busy ({answer.status_code}) and asks to wait {wait:.0f} s", "try later"
            )
        return wait

    def _find_base(self) -> str:
        """Whether a registry on the loopback speaks HTTP or HTTPS. A server of HTTPS answers 400 to HTTP."""
        try:
            answer = self._session.get(
                f"http://{self.host}/v2/", timeout=_TIMEOUT, verify=self._verify, allow_redirects=False
            )
            scheme = "https" if answer.status_code == 400 else "http"
        except requests.RequestException:
            scheme = "http"
        self._base = f"{scheme}://{self.host}"
        return self._base

    def _authorize(self, repository: str, challenge: str) -> None:
        """Do what a 401 asks for. Raises ActionFailed when there is no way to."""
        kind, _, rest = challenge.partition(" ")
        values = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        known = self._find(self.host)
        if kind.lower() == "basic" and known is not None:
            request = requests.Request("GET", self._base)
            self._tokens[repository] = str(
                requests.auth.HTTPBasicAuth(*known)(request.prepare()).headers["Authorization"]
            )
        elif kind.lower() == "bearer" and "realm" in values:
            with self._lock:
                self._tokens[repository] = f"Bearer {self._token(repository, values, known)}"
        else:
            raise self._error(repository, "it wants credentials, and there are none", f"docker login {self.host}")

    def _token(self, repository: str, values: Mapping[str, str], known: Credentials | None) -> str:
        scopes = values.get("scope") or f"repository:{repository}:pull"
        query = {"scope": scopes.split(), **({"service": values["service"]} if "service" in values else {})}
        try:
            if known is not None and not known.user:
                form = {**query, "grant_type": "refresh_token", "refresh_token": known.password, "client_id": "bk"}
                answer = self._session.post(values["realm"], data=form, timeout=_TIMEOUT, verify=self._verify)
            else:
                auth = requests.auth.HTTPBasicAuth(*known) if known else _as_it_is
                answer = self._session.get(
                    values["realm"], params=query, auth=auth, timeout=_TIMEOUT, verify=self._verify
                )
            answer.raise_for_status()
            document: dict[str, Any] = answer.json()
            return str(document.get("token") or document["access_token"])
        except (requests.RequestException, LookupError, AttributeError) as error:
            problem = f"no token from {values['realm']}: {error}"
            raise self._error(repository, problem, f"docker login {self.host}") from error

    def _error(self, repository: str, problem: str, hint: str = "") -> ActionFailed:
        return ActionFailed("registry", f"{self.host}/{repository}: {problem}", hint=hint)


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _hint(status: int) -> str:
    return {
        401: "log in, as with docker login",
        403: "log in as somebody who may pull it",
        404: "is it spelt right, and may you see it?",
    }.get(status, "")
