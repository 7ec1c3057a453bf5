"""Secrets in texts of a page: the values of variables with a telling name, and credentials in requests and addresses."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

HIDDEN = "***"
_ENVIRONMENT = "env/"
_NAME = re.compile(r"AUTH|CREDENTIAL|KEY|PASS|PRIVATE|SECRET|TOKEN", re.IGNORECASE)
_SHORTEST = 4
"""The length of the shortest value that is hidden: a shorter one is in every text."""
_CREDENTIALS = re.compile(
    r"(?P<head>\b(?:proxy-)?authorization[\"']?\s*[:=]\s*[\"']?(?:basic|bearer|negotiate|token)\s+)[^\s\"',]+"
    r"|(?P<scheme>\b[a-z][a-z0-9+.-]{1,20}://)[^\s/@\"']{1,256}@",
    re.IGNORECASE,
)


def secrets(leaves: Iterable[Mapping[str, str]]) -> frozenset[str]:
    """Return the values of variables that keys name, when the name of the variable tells that it is a secret."""
    return frozenset(
        value
        for each in leaves
        for name, value in each.items()
        if name.startswith(_ENVIRONMENT) and _NAME.search(name) and len(value) >= _SHORTEST
    )


def without(values: Iterable[str]) -> Callable[[str], str]:
    """Return a function that hides these values in a text, and credentials."""
    longest_first = sorted(set(values), key=len, reverse=True)
    known = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def hidden(text: str) -> str:
        if known is not None:
            text = known.sub(HIDDEN, text)
        return _CREDENTIALS.sub(_hidden, text) if "://" in text or "uthorization" in text.lower() else text

    return hidden


def _hidden(match: re.Match[str]) -> str:
    return f"{match['head']}{HIDDEN}" if match["head"] else f"{match['scheme']}{HIDDEN}@"


def shown_leaf(name: str, value: str | None) -> str | None:
    """Return the value of a leaf of a key as a page may show it: the values of variables are never shown."""
    return "(values of variables are not shown)" if value and name.startswith(_ENVIRONMENT) else value
