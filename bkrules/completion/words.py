"""The words of a command line as shells hand them over, and candidates as shells want them back."""

from __future__ import annotations

import re
from collections.abc import Iterable

_SPECIAL = re.compile(r"([^\w.,:=@%/+~^-])", re.ASCII)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def of_line(line: str) -> tuple[list[str], str, str]:
    """Return the words of a line of bash up to the cursor, the last as it is typed, and its open quote, if any.

    The last word is the one that is completed; it is empty after a space.
    """
    words: list[str] = []
    word = typed = quote = ""
    is_open = False
    letters = iter(line)
    for letter in letters:
        if not quote and letter in " \t\n":
            if is_open:
                words.append(word)
            word = typed = ""
            is_open = False
            continue
        is_open = True
        typed += letter
        if letter == quote:
            quote = ""
        elif not quote and letter in "'\"":
            quote = letter
        elif letter == "\\" and quote != "'":
            escaped = next(letters, "")
            typed += escaped
            word += escaped
        else:
            word += letter
    return [*words, word], typed, quote


def plain(word: str) -> str:
    """Return the text of a word that may be quoted or escaped, and whose quote may be open."""
    if word[:1] in ("'", '"'):
        return word[1:].removesuffix(word[0])
    return _ESCAPED.sub(r"\1", word)


def for_bash(candidates: Iterable[str], typed: str, quote: str, breaks: str) -> list[str]:
    """Return what bash puts in the place of the typed word, or of its part after the last of its `breaks`."""
    if quote:
        return list(candidates)
    many = sum(letter in breaks for letter in typed)
    return [_after(_SPECIAL.sub(r"\\\1", candidate), many, breaks) for candidate in candidates]


def _after(text: str, many: int, breaks: str) -> str:
    """Return the text after so many of the letters that break words."""
    place = 0
    while many and place < len(text):
        many -= text[place] in breaks
        place += 1
    return text[place:]
