"""A function of a test in a fresh process. Other tests, and threads that they left, open descriptors in this one at any time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

CALL = "import runpy, sys; sys.path[:] = {paths!r}; runpy.run_path({file!r})[{name!r}](*{arguments!r})"


def in_fresh_process(function: Callable[..., None], *arguments: object) -> None:
    """Call a function of a file of tests in a process that runs nothing else. The arguments are literals.

    Raises AssertionError, with the traceback, when the function raises.
    """
    script = CALL.format(
        paths=sys.path, file=function.__code__.co_filename, name=function.__name__, arguments=arguments
    )
    ended = subprocess.run([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
