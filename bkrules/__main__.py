"""The entry point: as little as possible is imported before the command is known."""

from __future__ import annotations

import sys
import time

from bkrules import __version__, unchanged


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
    from bkrules import cli

    return cli.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
