"""Parsers of headers that servers write in many ways: WWW-Authenticate, Retry-After and Link.

https://www.rfc-editor.org/rfc/rfc9110#section-11.6.1, #section-10.2.3, https://www.rfc-editor.org/rfc/rfc8288
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf'({_TOKEN})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))')
_SCHEME = re.compile(rf"({_TOKEN})(?:[ \t]+|(?=,|$))")
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|$))")
_NEXT = re.compile(r"""<([^<>]*)>[^<>,]*;[ \t]*rel[ \t]*=[ \t]*("?)next\2[ \t]*(?:[,;]|$)""", re.IGNORECASE)
_SECONDS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{0,9})?")


@dataclass(frozen=True)
class Challenge:
    """An authentication challenge: its scheme, and its parameters with their names in lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)


def challenges(values: Iterable[str]) -> list[Challenge]:
    """Return the challenges of one or several WWW-Authenticate headers, in their order. Unreadable ones are left out."""
    return [challenge for value in values for challenge in _challenges(value)]


def _challenges(value: str) -> Iterator[Challenge]:
    at, scheme, parameters = 0, "", dict[str, str]()
    while at < len(value):
        if value[at] in ", \t":
            at += 1
        elif scheme and (match := _PARAMETER.match(value, at)):
            quoted, plain = match[2], match[3]
            text = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
            parameters.setdefault(match[1].lower(), text)
            at = match.end()
        elif match := _SCHEME.match(value, at):
            if scheme:
                yield Challenge(scheme, parameters)
            scheme, parameters, at = match[1].lower(), {}, match.end()
            if token := _TOKEN68.match(value, at):
                at = token.end()
        else:
            comma = value.find(",", at)
            at = comma if comma >= 0 else len(value)
    if scheme:
        yield Challenge(scheme, parameters)


def next_page(values: Iterable[str]) -> str:
    """Return the address of the next page in one or several Link headers, or an empty text."""
    return next((match[1] for value in values if (match := _NEXT.search(value))), "")


def retry_after(value: str, date: str = "") -> float | None:
    """Return the seconds of a Retry-After header, at least 0, or None when it is unreadable.

    A time of day counts from `date`, the server's own Date header: the clocks of two machines may differ.
    """
    value = value.strip()
    if _SECONDS.fullmatch(value):
        return float(value)
    until = _seconds(value)
    if until is None:
        return None
    now = _seconds(date)
    if now is None:
        import time

        now = time.time()
    return max(0.0, until - now)


def _seconds(date: str) -> float | None:
    """Return an HTTP date in seconds since the epoch."""
    if not date or len(date) > 100:
        return None
    from datetime import UTC
    from email.utils import parsedate_to_datetime

    try:
        found = parsedate_to_datetime(date)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
