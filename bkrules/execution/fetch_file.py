"""The runner of FetchFile: bytes from the web, believed when they have the digest that was pinned."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from bkrules.action import Action, Node
from bkrules.errors import ActionFailed
from bkrules.execution.result import Outcome
from bkrules.execution.runner import Workshop

_TIMEOUT = (10.0, 60.0)  # to connect, and between two pieces of the body
_ATTEMPTS = 4
_AGAIN = (429, 500, 502, 503, 504)
_PIECE = 1 << 20


def fetch_file(action: Action, _inputs: Mapping[str, Node], workshop: Workshop) -> Outcome:
    """Fetch a file from the first place that has it. Raises ActionFailed when none has, or has other bytes."""
    spec = action.parameters
    (name,) = action.outputs
    place = workshop.scratch(action) / name
    problems = []
    for url in spec["urls"]:
        try:
            _fetch(url, place)
        except OSError as error:  # requests' errors are among them
            problems.append(f"{url}: {error}")
            continue
        with place.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found == spec["sha256"]:
            place.chmod(0o755 if spec["executable"] else 0o644)
            return Outcome("passed", {name: str(place)})
        problems.append(f"{url}: it has another sha256: {found}")
    raise ActionFailed(
        "fetch",
        f"{action.label}: no place has the file with sha256 {spec['sha256']}",
        hint="\n".join([*problems, "if other bytes are the right ones, pin their digest"]),
    )


def _fetch(url: str, place: Path) -> None:
    parts = urlsplit(url)
    if parts.scheme == "file":
        shutil.copyfile(url2pathname(parts.path), place)
        return
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    with requests.Session() as session:
        adapter = HTTPAdapter(max_retries=Retry(_ATTEMPTS, backoff_factor=0.2, status_forcelist=_AGAIN))
        session.mount("http://", adapter)
        session.mount("https://", adapter)
        with session.get(url, stream=True, timeout=_TIMEOUT) as answer, place.open("wb") as file:
            answer.raise_for_status()
            for piece in answer.iter_content(_PIECE):
                file.write(piece)
