"""Variables of the environment whose names look like those that bk reads, and are none of them."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Iterator

from bkrules.commands.parser import PARSER
from bkrules.errors import is_near
from bkrules.incremental.dependencies import current

PREFIX = "BK_"
KNOWN = (
    *("BK_REMOTE_HEADER", "BK_SYSTEM_PACKAGES", "BUILDKIT_INTEGRATION_CONTAINERD_EXTRA"),
    *("BUILDKIT_INTEGRATION_ROOTLESS_IDPAIR", "BUILDKIT_INTEGRATION_SNAPSHOTTER", "BUILDKIT_TEST_DISABLE_FEATURES"),
    *("BUILDKIT_TEST_ENABLE_FEATURES", "BUILDKIT_WORKER_RANDOM", "SKIP_INTEGRATION_TESTS", "TEST_BUILDKITD_BINARY"),
)
"""The variables that bk and BuildKit's harness read, and no other program. The modules that read them take long to import."""
_BEGIN = tuple({name.split("_")[0] for name in KNOWN})
OF_CELLS = ("BK_WORKER", "BK_SNAPSHOTTER", "BK_MIRROR", "BK_AXIS_", "BK_EXTRA_WORKER_")
"""The beginnings of variables that bk sets for programs in cells, and which a bk in a cell sees."""
_LIKE = 0.9
"""The likeness of a misspelt name: those of plugins and users differ more."""


def warn(arguments: argparse.Namespace) -> None:
    """Warn, in one block, of variables that have no effect although their names look so."""
    lines = [f"{name}: {hint}" for name, hint in _unknown(arguments)]
    if lines:
        print("\n  ".join(["warning: bk does not read these variables of the environment", *lines]), file=sys.stderr)
        current().doubts.append("a warning is not kept with an answer")


def _unknown(arguments: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Yield the names of variables without an effect, each with what to do."""
    for name, value in sorted(os.environ.items()):
        if name in KNOWN or name.startswith(OF_CELLS) or not name.startswith(_BEGIN):
            continue
        near = [known for known in KNOWN if is_near(name, known)] or difflib.get_close_matches(
            name, KNOWN, n=1, cutoff=_LIKE
        )
        if near:
            yield name, f"did you mean {near[0]}?"
        elif name.startswith(PREFIX) and (option := _option(arguments, name)) and not _has(arguments, option, value):
            yield name, f"write --{option}=VALUE on the command line, or in .bkrc"


def _option(arguments: argparse.Namespace, name: str) -> str:
    """Return the option of the command that is called as a variable; empty without one."""
    option = name.removeprefix(PREFIX).lower()
    parser = vars(arguments).get(PARSER)
    return option if parser is not None and parser.option(f"--{option}") is not None else ""


def _has(arguments: argparse.Namespace, option: str, value: str) -> bool:
    """Return whether the option has the value, as in `--remote_cache="$BK_REMOTE_CACHE"`."""
    found = vars(arguments).get(option)
    return value in map(str, found if isinstance(found, list) else [found])
