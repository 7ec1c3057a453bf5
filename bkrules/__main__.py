"""The entry point: imports as little as possible before the command is known."""

from __future__ import annotations

import gc
import os
import sys
import time

from bkrules import __version__
from bkrules.incremental import null_build
from bkrules.system import streams

# Objects made by imports, loading and analysis live to the end, so repeated garbage collection finds nothing.
_MANY_OBJECTS = 100_000
_MACHINE_LACKS = 36  # as in `errors`, which need not be imported to print a version


def main() -> int:
    """Run bk with this process's arguments. Return its exit code."""
    streams.use_utf8(sys.orig_argv)
    streams.prepare()
    try:
        code = _main()
    except SystemExit as end:  # of --help
        code = int(end.code or 0)
    fault = streams.finish()
    if fault is None:
        return code
    print(f"error: cannot write to standard output: {fault.strerror}", file=sys.stderr)
    return code or _MACHINE_LACKS


def _main() -> int:
    if sys.argv[1:] == ["--version"]:
        print(f"bk {__version__}")
        return 0
    if sys.argv[1:2] == ["__complete"]:
        from bkrules.completion import answer

        return answer.main(sys.argv[2:])
    began = time.monotonic()
    if len(sys.argv) > 1:
        code = null_build.answer(sys.argv[1:], began)
        if code is not None:
            return code
    gc.set_threshold(_MANY_OBJECTS)
    from bkrules import cli

    return cli.main(sys.argv[1:])


if __name__ == "__main__":
    code = main()
    if "bkrules.cli" in sys.modules:
        sys.exit(code)
    # Only a version or a kept answer was printed. No thread, file or exit handler needs an orderly end of the interpreter, which
    # would take a tenth of the time.
    sys.stderr.flush()
    os._exit(code)
