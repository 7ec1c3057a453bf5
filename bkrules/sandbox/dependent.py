"""Become a command that ends when bk does, however bk ends: `python -m bkrules.sandbox.dependent COMMAND...`."""

from __future__ import annotations

import os
import sys

from bkrules.sandbox.syscalls import NOT_FOUND, die_with_parent


def main(arguments: list[str]) -> None:
    """Become the command. Exits when the command does not exist."""
    die_with_parent()
    try:
        os.execvp(arguments[0], arguments)
    except OSError as error:
        sys.exit(_complaint(arguments[0], error))


def _complaint(command: str, error: OSError) -> int:
    print(f"bk: cannot run {command}: {error.strerror}", file=sys.stderr)
    return NOT_FOUND


if __name__ == "__main__":
    main(sys.argv[1:])
