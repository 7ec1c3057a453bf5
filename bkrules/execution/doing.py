"""A few words on what each running action does, by its id, for the live display; from any thread."""

from __future__ import annotations

_words: dict[str, str] = {}
_MIB = 1 << 20


def tell(action: str, words: str) -> None:
    """Note what an action does from now on."""
    _words[action] = words


def tell_bytes(action: str, done: int, total: int | None) -> None:
    """Note how many bytes an action has fetched, of how many when that is known."""
    of_all = f" of {total / _MIB:.1f}" if total else ""
    tell(action, f"{done / _MIB:.1f}{of_all} MiB")


def told(action: str) -> str:
    """Return what an action does; empty when it has not told."""
    return _words.get(action, "")


def ended(action: str) -> None:
    """Forget an action that no longer runs."""
    _words.pop(action, None)
