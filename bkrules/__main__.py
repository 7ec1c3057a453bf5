"""The entry point: as little as possible is imported before the command is known."""

from __future__ import annotations

import sys

from bkrules import __version__


def main() -> int:
    """Run bk with this process's arguments; its exit code."""
    if sys.argv[1:] == ["--version"]:
        print(f"bk {__version__}")
        return 0
    from bkrules import cli

    return cli.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
