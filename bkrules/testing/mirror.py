"""Requests of a test to the mirror of its cell."""

from __future__ import annotations

from typing import Any

import requests

from bkrules.errors import did_you_mean
from bkrules.mirror.record import BEGIN_FAULTS, COUNTS, END_FAULTS, MirrorRequest
from bkrules.model.reference import parse_reference
from bkrules.plugin.worker import MIRROR_ADDRESS

_WAIT = 10.0
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class MirrorFailed(AssertionError):
    """The mirror of the cell does not have what the test asks for, or gives no usable answer."""


def record() -> tuple[list[MirrorRequest], list[str]]:
    """Return the requests of this cell's daemons to the mirror so far, and why that list is incomplete. Raises MirrorFailed."""
    document = _json(COUNTS)
    return [MirrorRequest(**item) for item in document["requests"]], document["uncounted"]


def manifest(reference: str) -> dict[str, Any]:
    """Return the manifest of `host/repository:tag` or `host/repository@digest`.

    Raises ValueError for a text that is neither, and MirrorFailed for an image that the mirror does not have.
    """
    __tracebackhide__ = True
    name, at, digest = reference.partition("@")
    try:
        parsed = parse_reference(f"{name}:digest" if at else reference)
    except ValueError as error:
        raise ValueError(str(error)) from None  # the traceback is about the test, and not about the parser
    answer = _get(f"/v2/{parsed.repository}/manifests/{digest if at else parsed.tag}", _MANIFEST)
    if answer.status_code in (400, 404):
        images = sorted(_images())
        wanted = "" if at else f"{parsed.repository}:{parsed.tag}"
        hint = did_you_mean(wanted, images, "its images, without their registries")
        raise MirrorFailed(f"the mirror of this cell has no {reference}; {hint}")
    document = _document(answer)
    if not isinstance(document, dict):
        raise MirrorFailed(f"{_told(answer)}: no manifest, but {str(document)[:100]}")
    return document


def begin_faults() -> None:
    """Begin the faults of the mirror. Raises MirrorFailed when it has none."""
    __tracebackhide__ = True
    _switch(BEGIN_FAULTS)


def end_faults() -> None:
    """End the faults of the mirror. Raises MirrorFailed when it has none."""
    __tracebackhide__ = True
    _switch(END_FAULTS)


def _switch(path: str) -> None:
    __tracebackhide__ = True
    answer = _get(path)
    if answer.status_code == 404:
        raise MirrorFailed("no axis value of this cell has a 'mirror', so it has no faults to begin or end")
    _checked(answer)


def _images() -> list[str]:
    """Return the images of the mirror, as `repository:tag`."""
    names = _json("/v2/_catalog?n=1000")["repositories"]
    return [f"{name}:{tag}" for name in names for tag in _json(f"/v2/{name}/tags/list")["tags"] or ()]


def _json(path: str) -> Any:
    __tracebackhide__ = True
    return _document(_get(path))


def _document(answer: requests.Response) -> Any:
    """Return the JSON of an answer. Raises MirrorFailed."""
    __tracebackhide__ = True
    try:
        return _checked(answer).json()
    except ValueError as error:
        raise MirrorFailed(f"{_told(answer)}: no JSON: {answer.text[:100]!r}") from error


def _checked(answer: requests.Response) -> requests.Response:
    """Return the answer. Raises MirrorFailed unless its status is that of a success."""
    __tracebackhide__ = True
    if not answer.ok:
        raise MirrorFailed(f"{_told(answer)}: {answer.text[:200].strip()}")
    return answer


def _get(path: str, accept: str = "*/*") -> requests.Response:
    """Return the answer to a GET. Raises MirrorFailed when there is none."""
    __tracebackhide__ = True
    try:
        return requests.get(f"http://{MIRROR_ADDRESS}{path}", headers={"Accept": accept}, timeout=_WAIT)
    except requests.RequestException as error:
        raise MirrorFailed(f"GET {path} of the cell's mirror: {error}") from error


def _told(answer: requests.Response) -> str:
    """Return which answer it is."""
    return f"GET {answer.request.path_url} of the cell's mirror: status {answer.status_code}"
