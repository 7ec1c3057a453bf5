"""The entry point: as little as possible is imported before the command is known."""

from __future__ import annotations

import gc
import sys
import time

from bkrules import __version__, unchanged

# What importing, loading and analysis make lives to the end, so looking through it for garbage again and again finds none.
_MANY_OBJECTS = 100_000


def main() -> int:
    """Run bk with this process's arguments; its exit code."""
    if sys.argv[1:] == ["--version"]:
        print(f"bk {__version__}")
        return 0
    began = time.monotonic()
    if len(sys.argv) > 1:
        code = unchanged.answer(sys.argv[1:], began)
        if code is not None:
            return code
    gc.set_threshold(_MANY_OBJECTS)
    from bkrules import cli

    return cli.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
