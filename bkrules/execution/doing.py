"""A few words on what each running action does, by its id, for the progress of a build; from any thread."""

from __future__ import annotations

from collections.abc import Callable

_words: dict[str, str | Callable[[], str]] = {}
_MIB = 1 << 20


def tell(action: str, words: str | Callable[[], str]) -> None:
    """Note what an action does from now on: words, or a function that returns them whenever somebody looks."""
    _words[action] = words


def tell_bytes(action: str, done: int, total: int | None) -> None:
    """Note how many bytes an action has fetched, of how many when that is known."""
    tell(action, bytes_text(done, total))


def bytes_text(done: int, total: int | None) -> str:
    """Return so many bytes, of how many when that is known, as a text in MiB."""
    of_all = f" of {total / _MIB:.1f}" if total else ""
    return f"{done / _MIB:.1f}{of_all} MiB"


def told(action: str) -> str:
    """Return what an action does; empty when it has not told."""
    words = _words.get(action, "")
    return words if isinstance(words, str) else words()


def ended(action: str) -> None:
    """Forget an action that no longer runs."""
    _words.pop(action, None)
