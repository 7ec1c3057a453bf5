"""Explanations of why an action would run, or ran: the first leaf of its key that differs from an earlier one."""

from __future__ import annotations

import functools
import json
import os
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Any

from bkrules.errors import MachineLacks, UsageError
from bkrules.execution.layout import KEY, PREVIOUS, SHARED
from bkrules.report.kept_keys import MOST_KEY, leaves_of
from bkrules.system.files import read_regular

_PATIENCE = 30.0
_IN_PATHS = "/!$&'()*+,;=:@"
"""What a URL's path may have as it is, in addition to letters and digits. A name of a cell may have `#` and `?`."""
Read = Callable[[str], Mapping[str, Any] | None]
_SHOWN = 72
_UNNAMED = "all that the key names is the same, so that another version of bk has made it"
_BEFORE = 16
"""The length of the common text that is shown before the first difference of two long values."""
_ORDER = ("mnemonic", "salt", "platform/", "env/", "argument/", "input/", "output/", "timeout")


@dataclass(frozen=True)
class Difference:
    """The first leaf in which two keys differ, its two values (None where it is missing), and the number of other differences."""

    leaf: str
    old: str | None
    new: str | None
    more: int

    def __str__(self) -> str:
        old, new = _shown(self.old, self.new)
        if self.old is None:
            text = f"{self.leaf} is new: {new}"
        elif self.new is None:
            text = f"{self.leaf} is gone; it was {old}"
        else:
            text = f"{self.leaf} was {old} and is {new}"
        return f"{text} (and {self.more} more)" if self.more else text


def difference(old: Mapping[str, str], new: Mapping[str, str]) -> Difference | None:
    """Return the first difference of two keys by their leaves, or None. Arguments are compared inside their JSON."""
    changes = [
        (name, old.get(name), new.get(name))
        for name in sorted({*old, *new}, key=_place)
        if old.get(name) != new.get(name)
    ]
    if not changes:
        return None
    if len(changes) > 1 and changes[1][0].startswith(f"{changes[0][0]}/"):
        del changes[0]  # a folder, whose files are the leaves after it
    leaf, was, now = changes[0]
    more = len(changes) - 1
    if leaf.startswith("argument/") and was is not None and now is not None:
        inner = list(_inside(_parsed(was), _parsed(now), ""))
        if inner:  # otherwise the two differ only in their spelling
            leaf, was, now = inner[0]
            more += len(inner) - 1
    return Difference(leaf, was, now, more)


def _place(leaf: str) -> tuple[int, str]:
    return next((number for number, start in enumerate(_ORDER) if leaf.startswith(start)), len(_ORDER)), leaf


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _inside(old: Any, new: Any, path: str) -> Iterator[tuple[str, str | None, str | None]]:
    """Yield the values in which two JSON values differ, as JSON, in which 1, 1.0 and true are three things."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted({*old, *new}):
            below = f"{path}.{name}" if path else name
            if name in old and name in new:
                yield from _inside(old[name], new[name], below)
            else:
                yield below, _json(old[name]) if name in old else None, _json(new[name]) if name in new else None
    elif _json(old) != _json(new):
        yield path or "argument", _json(old), _json(new)


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _shown(old: str | None, new: str | None) -> tuple[str, str]:
    """Return two values as a line shows them: different values have different texts."""
    values = [value for value in (old, new) if value is not None]
    are_apart = len({_looks(value) for value in values}) == len(values)
    if are_apart and all(value and value.isprintable() for value in values):
        quoted = old or "", new or ""
    else:
        quoted = json.dumps(old or ""), json.dumps(new or "")
    shared = next(
        (place for place, (left, right) in enumerate(zip(*quoted, strict=False)) if left != right), _least(quoted)
    )
    begin = shared - _BEFORE if shared > _SHOWN - _BEFORE else 0
    return _part(quoted[0], begin), _part(quoted[1], begin)


def _least(texts: Iterable[str]) -> int:
    return min(map(len, texts))


def _looks(text: str) -> str:
    """Return a text as it looks to the eye, without spaces at its ends and with only one spelling of each letter."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def _part(text: str, begin: int) -> str:
    return f"{'...' if begin else ''}{text[begin : begin + _SHOWN]}{'...' if len(text) > begin + _SHOWN else ''}"


@contextmanager
def opened(place: str, *, must_exist: bool) -> Iterator[Read]:
    """Return a function that reads the kept keys of a run, by their paths in its `bk-out`: a folder, its URL, or an archive of it.

    A missing key is None. Raises UsageError when there is no run at `place`, unless it need not exist, and MachineLacks
    when it cannot be read.
    """
    with ExitStack() as stack:
        if place.startswith(("http://", "https://")):
            fetch = _from_server(place)
        elif os.path.isfile(place):
            fetch = _from_archive(place, stack)
        elif must_exist and not os.path.isdir(place):
            hint = "name a bk-out folder, the URL of one, or an archive with one in it"
            raise UsageError("against", f"--against: there is nothing at {place}", hint=hint)
        else:
            fetch = _from_folder(place)

        @functools.cache
        def shared(path: str) -> bytes | None:
            with suppress(FileNotFoundError):
                return fetch(path)
            return None

        def read(path: str) -> Mapping[str, Any] | None:
            try:
                data = fetch(path)
                return None if data is None else _document(data, path, shared)
            except FileNotFoundError:
                return None
            except (OSError, ValueError) as error:
                raise MachineLacks("against", f"cannot read {place}/{path}: {error}", hint="see --against") from error

        yield read


def _document(data: bytes, path: str, fetch: Callable[[str], bytes | None]) -> dict[str, Any]:
    document = json.loads(data)
    if not isinstance(document, dict) or not {"key", "leaves"} <= document.keys():
        raise ValueError("it holds no key")
    leaves = leaves_of(document, path, fetch)
    if leaves is None:
        raise ValueError(f"a file of {SHARED} that it names is missing or damaged")
    return {**document, "leaves": leaves}


def _from_folder(place: str) -> Callable[[str], bytes | None]:
    return lambda path: read_regular(f"{place}/{path}")


def _from_server(place: str) -> Callable[[str], bytes | None]:
    def fetch(path: str) -> bytes | None:
        from urllib.parse import quote

        from bkrules.web.client import HttpClient
        from bkrules.web.errors import BadAnswer
        from bkrules.web.limits import Limits
        from bkrules.web.trust import trust

        authorities = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE")
        limits = Limits(connect=_PATIENCE, idle=_PATIENCE, total=_PATIENCE)
        with ExitStack() as closed:
            client = HttpClient(trust(authorities))
            closed.callback(client.close)
            answer = closed.enter_context(
                client.request("GET", f"{place}/{quote(path, safe=_IN_PATHS)}", limits=limits, redirects=True)
            )
            if answer.status == 404:
                return None
            if answer.status != 200:
                raise BadAnswer(f"{answer.status} {answer.reason}")
            return answer.read(MOST_KEY)

    return fetch


def _from_archive(place: str, stack: ExitStack) -> Callable[[str], bytes | None]:
    """Read a zip or a tar, compressed or not, as CI keeps them: `bk-out` may be at its top or in a folder."""
    import tarfile
    import zipfile

    names: Collection[str]
    take: Callable[[str], bytes]
    if zipfile.is_zipfile(place):
        zipped = stack.enter_context(zipfile.ZipFile(place))
        names, take = zipped.namelist(), lambda name: zipped.read(name)
    elif tarfile.is_tarfile(place):
        tar = stack.enter_context(tarfile.TarFile.open(place))
        members = {member.name: member for member in tar if member.isfile()}
        names, take = members, lambda name: _whole(tar.extractfile(members[name]))
    else:
        hint = "name a bk-out folder, the URL of one, or an archive with one in it"
        raise UsageError("against", f"--against: {place} is neither a zip nor a tar", hint=hint)

    def fetch(path: str) -> bytes | None:
        matches = [name for name in names if name == path or name.endswith(f"/{path}")]
        return take(min(matches, key=len)) if matches else None

    return fetch


def _whole(file: IO[bytes] | None) -> bytes:
    assert file is not None  # a regular file always has one
    return file.read()


def explain(
    key: str | None,
    leaves: Mapping[str, str],
    read: Read,
    *,
    cache: str | None,
    waits_for: str,
    skip: str | None = None,
) -> str:
    """Return an explanation of one line. `read` returns the kept key of the last build, or the key before that when the
    action ran.

    `cache` is where the result is: disk, remote, or nowhere. `skip` is why the test skipped itself, if it did.
    """
    if key is None:
        return f"would run: {waits_for} would run first"
    last = read(KEY)
    if cache:
        where = "cached" if cache == "disk" else "cached in the remote cache"
        if skip is not None:
            where = f"skipped ({where}): {skip}".removesuffix(": ")
        previous = read(PREVIOUS)
        if last is None or previous is None or last["key"] != key:
            return where
        changed = difference(previous["leaves"], last["leaves"]) or (
            _UNNAMED if previous["key"] != last["key"] else None
        )
        return f"{where}; it ran in the last build: {changed or 'its previous result was no pass and no skip'}"
    if last is None:
        return "would run: no earlier run is known"
    changed = difference(last["leaves"], leaves) or (_UNNAMED if last["key"] != key else None)
    return f"would run: {changed or 'its last result is not in the cache: it was no pass and no skip, or was removed'}"


def compare(key: str | None, leaves: Mapping[str, str], read: Read, *, waits_for: str) -> str:
    """Return one line on how a key differs from that of another run."""
    if key is None:
        return f"not known here: {waits_for} would run first"
    document = read(KEY)
    if document is None:
        return "that run has no key of it"
    if document["key"] == key:
        return "the same key"
    return f"another key: {difference(document['leaves'], leaves) or _UNNAMED}"
