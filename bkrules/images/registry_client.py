"""A client of the OCI distribution protocol: pulls and pushes manifests and blobs by their digests.

https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

from bkrules.errors import ActionFailed
from bkrules.images.digests import ImageDigest
from bkrules.images.docker_auth import Credentials, credentials
from bkrules.images.documents import INDEXES, Manifest, joined_index, read_index, read_manifest
from bkrules.images.json_object import MANIFEST_LIMIT, bad
from bkrules.images.protocol import ACCEPT, authorities, is_loopback, referrers_tag, server, written
from bkrules.images.registry_auth import AuthenticationFailed, Authorizer
from bkrules.system.network import HINT
from bkrules.web.client import Body, HttpClient, Response, origin
from bkrules.web.errors import HttpError, TooLarge, TooSlow, Unreachable, Untrusted
from bkrules.web.headers import next_page, retry_after
from bkrules.web.limits import Limits
from bkrules.web.trust import trust

_AGAIN = (408, 429, 500, 502, 503, 504)
NO_ANSWER = "no-answer"
"""The reason of an error when no try reached the registry."""
_TRIES = 5
_SLOW_TRIES = 2  # of a request that timed out
_FIRST_WAIT = 0.1
_LONGEST_WAIT = 30.0
_PAGES = 100
_PROGRESS = 1 << 20  # bytes of a blob after which the count of tries starts again
_MISSING, _NO_HEAD, _PARTIAL, _UNAUTHORIZED = 404, 405, 206, 401

DOCUMENT = Limits(connect=10, idle=30, total=60)
"""The limits for manifests, tokens, and other small answers."""
BLOB = Limits(connect=10, idle=60, least=64 << 10)
"""The limits for blobs, which may take hours, but must make progress."""
STORE_RATE = 4 << 20
"""Bytes a second: the least rate at which a registry must accept an upload."""


class RegistryClient:
    """A client of one registry. Safe for several threads.

    A registry on the loopback may use plain HTTP, as in Docker. Certificate authorities are those of REQUESTS_CA_BUNDLE
    or SSL_CERT_FILE, or the public ones. The client retries when the registry is busy or a connection ends.
    """

    def __init__(self, host: str, find: Callable[[str], Credentials | None] = credentials) -> None:
        self.host = host
        self._find = find
        self._client = HttpClient(trust(authorities()))
        self._authorizer = Authorizer(host, self._client, find)
        self._base = "" if is_loopback(host) else f"https://{server(host)}"

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def digest(self, repository: str, tag: str) -> str:
        """Return the current digest of a tag. Raises ActionFailed."""
        with self._ask("HEAD", repository, f"manifests/{tag}", {"Accept": ACCEPT}, expected=(_NO_HEAD,)) as answer:
            found = _digest(answer)
        return found or self.manifest(repository, tag).digest

    def has(self, repository: str, path: str) -> str:
        """Return the digest of `manifests/TAG` or `blobs/DIGEST` when the registry has it, or empty. Raises ActionFailed."""
        with self._ask("HEAD", repository, path, {"Accept": ACCEPT}, expected=(_MISSING, _NO_HEAD)) as answer:
            return "" if answer.status in (_MISSING, _NO_HEAD) else _digest(answer) or path

    def manifest(self, repository: str, reference: str) -> Manifest:
        """Return the manifest of a tag or a digest. Raises ActionFailed when it does not exist, or when its bytes do not match."""
        answer, data = self._document(repository, f"manifests/{reference}", ACCEPT, pinned=":" in reference)
        expected = reference if ":" in reference else answer.header("Docker-Content-Digest")
        return read_manifest(data, written(self.host, repository, reference), expected)

    def referrers(self, repository: str, digest: ImageDigest) -> Manifest | None:
        """Return the index of a manifest's referrers, from the referrers API or the referrers tag; None when it has none.

        https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#listing-referrers. Raises ActionFailed.
        """
        where = f"{written(self.host, repository, digest)}: its referrers"
        path: str | Callable[[], str] = f"referrers/{digest}"
        entries: list[Mapping[str, Any]] = []
        for _ in range(_PAGES):
            answer, data = self._document(repository, path, INDEXES[0], expected=(400, 404, 405))
            if answer.status >= 300:
                tag = f"manifests/{referrers_tag(digest)}"
                answer, data = self._document(repository, tag, INDEXES[0], expected=(404,))
                return read_index(data, where) if answer.status < 300 else None
            index = read_index(data, where)
            entries += (entry.raw for entry in index.entries)
            following = next_page(answer.headers("Link"))
            if not following:
                return index if len(entries) == len(index.entries) else joined_index(entries, where)
            path = partial(urljoin, answer.url, following)
        raise self._error(repository, f"the referrers of {digest} have more than {_PAGES} pages")

    def _document(
        self,
        repository: str,
        path: str | Callable[[], str],
        accept: str,
        expected: Collection[int] = (),
        *,
        pinned: bool = False,
    ) -> tuple[Response, bytes]:
        """Return an answer with its bytes, within the limit of manifests. Raises ActionFailed."""
        name = path if isinstance(path, str) else "referrers"
        for attempt in range(_TRIES):
            headers = {"Accept": accept}
            with self._ask("GET", repository, path, headers, expected=expected, pinned=pinned) as answer:
                if (answer.header("Content-Encoding") or "identity") != "identity":
                    raise self._error(repository, f"{name}: it has an unsolicited encoding")
                try:
                    return answer, answer.read(MANIFEST_LIMIT)
                except TooLarge as error:
                    where = written(self.host, repository, name.removeprefix("manifests/"))
                    raise bad(where, f"it is larger than {MANIFEST_LIMIT} bytes") from error
                except HttpError as error:
                    problem = str(error)
                    if isinstance(error, TooSlow):
                        break
            time.sleep(_FIRST_WAIT * 2**attempt)
        raise self._error(repository, f"{name}: {problem}, {attempt + 1} times")

    def blob(self, repository: str, digest: ImageDigest, size: int) -> Iterator[bytes]:
        """Yield the bytes of a blob, in chunks, never more than `size`. After the end of a connection, the client resumes.

        Raises ActionFailed, at the end when the bytes do not match the digest.
        """
        found, at, tries, counted = hashlib.sha256(), 0, 0, 0
        while at < size or not tries:
            tries += 1
            problem = ""
            with self._ask("GET", repository, f"blobs/{digest}", _range(at), pinned=True, limits=BLOB) as answer:
                skip = at if answer.status != _PARTIAL else 0  # a registry may not support ranges
                try:
                    for piece in answer.chunks(skip + size - at):
                        piece, skip = piece[skip:], max(0, skip - len(piece))
                        at += len(piece)
                        found.update(piece)
                        yield piece
                except TooLarge as error:
                    raise self._error(repository, f"blob {digest} has more than its {size} bytes") from error
                except HttpError as error:
                    problem = f": {error}"
            if at - counted >= _PROGRESS:
                tries, counted = 1, at
            if at < size:
                if tries >= _TRIES:
                    raise self._error(
                        repository, f"blob {digest} ended after {at} of {size} bytes, {tries} times{problem}"
                    )
                time.sleep(_FIRST_WAIT * 2 ** (tries - 1))
        if f"sha256:{found.hexdigest()}" != digest:
            raise self._error(repository, f"blob {digest} has {at} bytes with the digest sha256:{found.hexdigest()}")

    def upload(
        self, repository: str, digest: ImageDigest, size: int, chunks: Callable[[], Iterable[bytes]], origin: str = ""
    ) -> None:
        """Upload a blob, or let the registry mount it from `origin`, another of its repositories. Raises ActionFailed."""
        wish = urlencode({"mount": digest, "from": origin}) if origin else ""
        begun = self._begin(repository, wish)
        if not begun:
            return
        places = [begun]

        def place() -> str:
            found = places.pop() if places else self._begin(repository)  # a failed upload starts again
            return f"{found}{'&' if urlsplit(found).query else '?'}{urlencode({'digest': digest})}"

        headers = {"Content-Type": "application/octet-stream"}
        limits = replace(BLOB, idle=BLOB.idle + size / STORE_RATE)
        with self._ask("PUT", repository, place, headers, body=Body(size, chunks), limits=limits):
            pass

    def _begin(self, repository: str, mount: str = "") -> str:
        """Return the address for the upload of a blob, or an empty text when the registry has mounted it."""
        with self._ask("POST", repository, f"blobs/uploads/{'?' if mount else ''}{mount}", {}) as answer:
            if mount and answer.status == 201:
                return ""
            try:
                found = urljoin(answer.url, answer.header("Location"))
                is_downgrade = origin(found).scheme == "http" and origin(self._base).scheme == "https"
            except (HttpError, ValueError) as error:
                raise self._error(repository, f"it names no address for a blob: {error}") from error
        if found == answer.url or is_downgrade:
            raise self._error(repository, f"it names no place {'of https ' if is_downgrade else ''}for a blob")
        return found

    def put_manifest(self, repository: str, reference: str, manifest: Manifest) -> None:
        """Upload a manifest under a tag or its digest. Raises ActionFailed."""
        headers = {"Content-Type": manifest.media_type}
        with self._ask("PUT", repository, f"manifests/{reference}", headers, body=manifest.data):
            pass

    def _ask(
        self,
        method: str,
        repository: str,
        path: str | Callable[[], str],
        headers: Mapping[str, str],
        *,
        body: bytes | Body | None = None,
        limits: Limits | None = None,
        expected: Collection[int] = (),
        pinned: bool = False,
    ) -> Response:
        """Return the answer to a request; `expected` are bad statuses that the caller handles.

        A path may be a function, for an address that is valid for a single try. A `pinned` request has a digest, so its
        answer may come from any server.
        """
        name = path if isinstance(path, str) else "the redirect target"
        problem, authorized, slow, silent = "", False, 0, True
        for attempt in range(_TRIES):
            url = f"{self._base or self._find_base()}/v2/{repository}/{path}" if isinstance(path, str) else path()
            token = self._authorizer.header(repository)
            try:
                answer = self._send(method, url, headers, body, limits or DOCUMENT, token, pinned=pinned)
            except Untrusted as error:
                raise self._error(repository, str(error), "name its authority in SSL_CERT_FILE") from error
            except HttpError as error:
                slow += isinstance(error, TooSlow)
                silent = silent and isinstance(error, Unreachable | TooSlow)
                problem = str(error)
                if slow >= _SLOW_TRIES:
                    break
                time.sleep(_FIRST_WAIT * 2**attempt)
                continue
            silent = False
            if answer.status < 300 or answer.status in expected:
                return answer
            with answer:
                problem = f"{answer.status} {answer.reason}"
                own = origin(answer.url) == origin(self._base)
            if answer.status == _UNAUTHORIZED and own and not authorized:
                authorized = True
                self._authorize(repository, answer, token, push=method not in ("GET", "HEAD"))
                continue
            if answer.status not in _AGAIN:
                where = "" if own else f" from {_place(answer.url)}"
                raise self._error(repository, f"{name}: {problem}{where}", _hint(answer.status))
            time.sleep(self._wait(repository, answer, attempt))
        failure = self._error(repository, f"{name}: {problem}, {attempt + 1} times", HINT if silent else "")
        failure.reason = NO_ANSWER if silent else failure.reason
        raise failure

    def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | Body | None,
        limits: Limits,
        token: str,
        *,
        pinned: bool,
    ) -> Response:
        """Return the answer to one request. Credentials go only to the registry's own origin: it may redirect blobs elsewhere."""
        own = origin(url) == origin(self._base)
        secret = {"Authorization": token} if token and own else {}
        follow = method in ("GET", "HEAD")
        once = isinstance(body, Body)  # the address of an upload is valid for a single try
        return self._client.request(
            method, url, headers, body, limits, secret=secret, redirects=follow, plain=pinned, replay=not once
        )

    def _authorize(self, repository: str, answer: Response, token: str, *, push: bool) -> None:
        values = answer.headers("WWW-Authenticate")
        try:
            self._authorizer.answer(repository, self._base, values, token, push=push)
        except AuthenticationFailed as error:
            raise self._error(repository, str(error), f"docker login {self.host}") from error

    def _wait(self, repository: str, answer: Response, attempt: int) -> float:
        """Return the seconds to wait before the next try, which the registry may choose."""
        wait = retry_after(answer.header("Retry-After"), answer.header("Date"))
        if wait is not None and wait > _LONGEST_WAIT:
            problem = f"it is busy ({answer.status}) and asks to wait {wait:.0f} s"
            raise self._error(repository, problem, "try later")
        return wait if wait is not None else _FIRST_WAIT * 2**attempt

    def _find_base(self) -> str:
        """Find out whether a registry on the loopback speaks HTTP or HTTPS. An HTTPS server answers 400 to HTTP."""
        scheme = "http"
        try:
            with self._client.request("GET", f"http://{self.host}/v2/", limits=DOCUMENT) as answer:
                scheme = "https" if answer.status == 400 else "http"
        except HttpError:
            pass  # the following request reports the error
        self._base = f"{scheme}://{self.host}"
        return self._base

    def _error(self, repository: str, problem: str, hint: str = "") -> ActionFailed:
        return ActionFailed("registry", f"{self.host}/{repository}: {problem}", hint=hint)


def _place(url: str) -> str:
    found = origin(url)
    return f"{found.host}:{found.port}"


def _range(at: int) -> dict[str, str]:
    return {"Range": f"bytes={at}-"} if at else {}


def _digest(answer: Response) -> str:
    """Return the digest in the head of an answer, or an empty text without a valid one."""
    try:
        return ImageDigest(answer.header("Docker-Content-Digest"))
    except ValueError:
        return ""


def _hint(status: int) -> str:
    return {
        401: "log in with docker login",
        403: "log in as a user with the right to pull it",
        404: "check its spelling, and your right to see it",
    }.get(status, "")
