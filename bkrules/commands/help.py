"""`bk help`: the commands, the options of one, or a topic."""

from __future__ import annotations

import argparse
import os
from functools import partial
from itertools import chain
from textwrap import wrap
from typing import TYPE_CHECKING

from bkrules import errors
from bkrules.commands.parser import command, summaries
from bkrules.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from bkrules.commands.parser import Commands

TOPICS = {
    "exit-codes": (
        "the meaning of the exit codes",
        """Exit codes are Bazel's:
  0   success
  1   a build file is wrong, an action other than a cell failed, or a plugin is broken
  2   wrong usage
  3   tests failed or timed out
  4   nothing ran, as for `bk test` without a matrix
  5   `bk replay`: the outcome is another one than the recorded one
  8   interrupted, also a `bk worker` that gave actions back
  34  an engine failed; or the remote cache, with --remote_required, in bk cache push or in bk run-action
  36  this machine lacks something
  37  a bug of bk; only this one shows a traceback""",
    ),
    "labels": (
        "labels of targets, and patterns that name several",
        """A label names a target: //pkg:name. Patterns name several:
  //pkg:name    one target               //pkg      the same as //pkg:pkg
  //pkg:all     those of the package     //pkg/...  those below the folder too
  -//pkg:name   all but this one, after other patterns
Without // they start in the current folder: :name, pkg:name, pkg/..., and pkg for pkg:pkg.
A cell is a point of a matrix: test_push/worker=oci/kind=gzip, or //pkg:matrix[test_push/worker=oci/kind=gzip].
`why`, `shell` and `logs` take the beginning of a cell's name, or a filter (`bk help filters`), too.""",
    ),
    "filters": (
        "which cells of the targets run",
        """--test_filter=TEXT compares TEXT with the parts of a cell's name, split at /, in their order:
  test_push            the test with all of its parameters and on all workers
  worker=oci           the cells of that worker alone
  test_*/kind=gzip     a pattern with * and ?, and a value of an axis
  //worker=oci$        a regular expression, as the Go harness takes it
  -worker=rootless     all cells but these
The first that matches a cell counts: exact text, pattern, regular expression. Several filters add up.
--failed takes the cells that failed when they last ran, --test_tag_filters=A,-B targets by their tags, --shard=I/N one part
of N, and --random_worker=SEED one worker of each matrix.""",
    ),
    "environment": (
        "variables that bk reads",
        """bk reads these environment variables. Cells do not see them.
  NO_COLOR, FORCE_COLOR, CLICOLOR_FORCE, TERM=dumb   colours; --color takes precedence
  GITHUB_ACTIONS, GITLAB_CI                          annotations and groups for the CI
  XDG_CACHE_HOME, HOME                               where the disk cache and ~/.bkrc are
  BK_REMOTE_HEADER                                   headers for the remote cache, such as a token
  HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE               how bk reaches registries
  BK_SYSTEM_PACKAGES=no                              the launcher installs no system packages
and those of BuildKit's harness: SKIP_INTEGRATION_TESTS, BUILDKIT_WORKER_RANDOM, BUILDKIT_TEST_ENABLE_FEATURES,
BUILDKIT_TEST_DISABLE_FEATURES, BUILDKIT_INTEGRATION_SNAPSHOTTER, BUILDKIT_INTEGRATION_CONTAINERD_EXTRA,
BUILDKIT_INTEGRATION_ROOTLESS_IDPAIR, TEST_BUILDKITD_BINARY.
--test_env=NAME=VALUE gives a variable to cells.""",
    ),
    "bkrc": (
        "default options in .bkrc",
        """.bkrc next to WORKSPACE.py, and then ~/.bkrc, contain options, as Bazel's .bazelrc:
  common --disk_cache=/var/cache/bk
  build --jobs=4
  test --flaky_test_attempts=2
  build:ci --keep_going
  try-import %workspace%/user.bkrc
Lines of `build` also apply to `test`, those of `common` to each command that has the option. `--config=ci` adds the lines
with `:ci`. The command line takes precedence. `bk --norc COMMAND` reads no such file.""",
    ),
}
"""The topics: what each is about, and its text."""
_LEAST_ROOM = 30
"""The columns of a text on a terminal that is too narrow for it."""


def add(commands: Commands) -> None:
    """Add the commands of this module to the parser."""
    about = command(commands, "help", partial(_help, commands), "tell about a command or a topic")
    about.add_argument("topic", nargs="?", default="", metavar="COMMAND-or-TOPIC", help="such as test, or exit-codes")


def _help(commands: Commands, arguments: argparse.Namespace) -> int:
    topic = arguments.topic.replace("_", "-").removeprefix(".")
    if topic in TOPICS:
        print(TOPICS[topic][1])
    elif arguments.topic in commands.choices:
        print(commands.choices[arguments.topic].format_help(), end="")
    elif arguments.topic:
        hint = did_you_mean(arguments.topic, (*commands.choices, *TOPICS), "commands and topics")
        raise UsageError("unknown-topic", f"bk has no command or topic {arguments.topic!r}", hint=hint)
    else:
        print(_overview(summaries(commands), os.get_terminal_size(1).columns if os.isatty(1) else 0))
    return errors.SUCCESS


def _overview(texts: dict[str, str], columns: int) -> str:
    """Return a row for each command and topic, with its text wrapped at so many columns; 0 means never."""
    width = max(map(len, (*texts, *TOPICS)))

    def row(name: str, text: str) -> list[str]:
        first = f"  {name:{width}}  "
        room = max(columns - len(first), _LEAST_ROOM) if columns else len(text)
        return [f"{first if not place else ' ' * len(first)}{line}" for place, line in enumerate(wrap(text, room))]

    lines = ["commands:", *chain.from_iterable(row(name, text) for name, text in texts.items())]
    lines += ["", "topics:", *chain.from_iterable(row(name, text) for name, (text, _) in TOPICS.items())]
    return "\n".join([*lines, "", "see `bk help COMMAND` for the options of a command, `bk help TOPIC` for a topic"])
