"""The environment variables of BuildKit's own harness, and the options that mean the same.

Build files are hermetic, so the environment is read here and nowhere else. What it says is an option that the user could have
given, and is reported as one.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
from collections.abc import Mapping

from bkrules.observed import doubt
from bkrules.selection import Selection

SKIP = "SKIP_INTEGRATION_TESTS"
RANDOM = "BUILDKIT_WORKER_RANDOM"
_SEEDS = 1 << 32
_ANY = "any"


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Let a command take what says which cells run."""
    group = parser.add_argument_group("which cells run")
    group.add_argument(
        "--test_filter",
        "--test-filter",
        action="append",
        default=[],
        metavar="TEXT",
        help="cells with this name, pattern or regular expression: test_x, 'test_*/worker=oci', //worker=oci$, kind=gzip; "
        "with - in front, all but those. Can be repeated",
    )
    group.add_argument(
        "--shard",
        "--slice",
        type=_shard,
        metavar="I/N",
        help="the cells of one of N shards that take about the same time; I-N means the same",
    )
    group.add_argument(
        "--random_worker",
        "--random-worker",
        type=_seed,
        metavar="SEED",
        help=f"the cells of one worker of each matrix, chosen by this number; with '{_ANY}' by chance, as with {RANDOM}=1",
    )


def selection_of(arguments: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> Selection:
    """Which cells run. A seed that nobody gave is made here, and the build's answer is not kept. Only 1 counts, as in BuildKit."""
    seed = arguments.random_worker
    if seed == _ANY or (seed is None and environment.get(RANDOM) == "1"):
        doubt("the worker is chosen at random")
        seed = str(secrets.randbelow(_SEEDS))
    skip = f"skipping integration tests, since {SKIP}=1" if environment.get(SKIP) == "1" else ""
    return Selection(tuple(arguments.test_filter), arguments.shard, None if seed is None else int(seed), skip)


def _shard(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)[/-](\d+)", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise argparse.ArgumentTypeError(f"must be I/N with 1 <= I <= N, but was {text!r}")
    return int(found[1]), int(found[2])


def _seed(text: str) -> str:
    if text != _ANY and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number or '{_ANY}', but was {text!r}")
    return text
