"""The functions of queries, and the kinds of their arguments."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Signature:
    """The arguments of a function: each is `targets`, `regex`, `word` or `depth`. The last `optional` may be left out."""

    arguments: tuple[str, ...]
    optional: int = 0

    def __str__(self) -> str:
        required = len(self.arguments) - self.optional
        rest = "".join(f"[, {kind}]" for kind in self.arguments[required:])
        return f"({', '.join(self.arguments[:required])}{rest})"


FUNCTIONS: Mapping[str, Signature] = {
    "allpaths": Signature(("targets", "targets")),
    "attr": Signature(("word", "regex", "targets")),
    "deps": Signature(("targets", "depth"), optional=1),
    "filter": Signature(("regex", "targets")),
    "kind": Signature(("regex", "targets")),
    "labels": Signature(("word", "targets")),
    "rdeps": Signature(("targets", "targets", "depth"), optional=1),
    "somepath": Signature(("targets", "targets")),
    "tag": Signature(("regex", "targets")),
}
FILTERS: Mapping[str, Signature] = {name: Signature(("regex", "targets")) for name in ("inputs", "mnemonic", "outputs")}
KINDS = {
    "regex": "a regular expression in quotes",
    "word": "a word, such as the name of an attribute",
    "depth": "a whole number",
}
"""How messages describe the kinds of arguments."""


def regex(text: str) -> re.Pattern[str]:
    """Return the compiled pattern. Raises re.error, OverflowError or RecursionError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return re.compile(text)
