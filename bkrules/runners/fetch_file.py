"""The runner of FetchFile: bytes from the web, verified against the pinned digest."""

from __future__ import annotations

import errno
import hashlib
import shutil
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from bkrules.errors import ActionFailed, MachineLacks
from bkrules.execution import doing
from bkrules.execution.context import RunContext
from bkrules.execution.result import Outcome
from bkrules.model.action import Action, Node
from bkrules.model.parameters import FetchFile, parameters_of
from bkrules.model.status import Status
from bkrules.system.files import open_regular
from bkrules.system.network import HINT
from bkrules.web.errors import BadAnswer, TooSlow, Unreachable

_MOST = 64 << 30  # the limit in bytes of a file
_FIRST_WAIT = 0.2
_OK = 200
_ATTEMPTS = 4
_AGAIN = (429, 500, 502, 503, 504)


def fetch_file(action: Action, _inputs: Mapping[str, Node], context: RunContext) -> Outcome:
    """Fetch a file from the first place that has it. Raises ActionFailed when none has, or has other bytes, and
    MachineLacks when no server answers.
    """
    spec = parameters_of(action, FetchFile)
    (name,) = action.outputs
    place = context.scratch(action) / name
    problems, remedy = [], "check the URLs, and whether this machine reaches them"
    silent = True
    for url in spec.urls:
        try:
            _fetch(url, place, action.id)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            silent = silent and isinstance(error, Unreachable | TooSlow)
            problems.append(f"{url}: {error}")
            continue
        silent = False
        with place.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if sha256 == spec.sha256:
            place.chmod(0o755 if spec.executable else 0o644)
            return Outcome(Status.PASSED, {name: str(place)})
        problems.append(f"{url}: it has another sha256: {sha256}")
        remedy = "if these bytes are the right ones, pin their digest"
    if silent:
        what = f"{action.label}: no server of its URLs can be reached"
        raise MachineLacks("no-network", what, hint="\n".join([*problems, HINT]))
    raise ActionFailed(
        "fetch",
        f"{action.label}: no URL has the file with sha256 {spec.sha256}",
        hint="\n".join([*problems, remedy]),
    )


def _fetch(url: str, place: Path, action: str = "") -> None:
    parts = urlsplit(url)
    if parts.scheme == "file":
        with open_regular(url2pathname(parts.path)) as source, place.open("wb") as file:
            shutil.copyfileobj(source, file)
        return
    from bkrules.images.protocol import authorities
    from bkrules.web.client import HttpClient
    from bkrules.web.limits import Limits
    from bkrules.web.trust import trust

    limits = Limits(connect=10, idle=60, least=64 << 10)
    with closing(HttpClient(trust(authorities()))) as client:
        for attempt in range(_ATTEMPTS):
            last = attempt == _ATTEMPTS - 1
            try:
                # The file has a pinned digest, so any server may send it.
                with client.request("GET", url, limits=limits, redirects=True, plain=True) as answer:
                    if answer.status == _OK:
                        length = answer.header("content-length")
                        total = int(length) if length.isdecimal() else None
                        with place.open("wb") as file:
                            for piece in answer.chunks(_MOST):
                                file.write(piece)
                                doing.tell_bytes(action, file.tell(), total)
                        return
                    if last or answer.status not in _AGAIN:
                        raise BadAnswer(f"{answer.status} {answer.reason}")
            except Unreachable:
                if last:
                    raise
            time.sleep(_FIRST_WAIT * 2**attempt)
