"""The environment variables of BuildKit's own harness, and the equivalent options.

Build files are hermetic, so bk reads the environment only here. A variable counts as the option with the same meaning,
and is reported as that option.
"""

from __future__ import annotations

import argparse
import os
import pwd
import re
import secrets
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from bkrules.build.ci_plan import NAME as PLAN
from bkrules.build.ci_plan import PlanJob, file_of, job_of
from bkrules.build.selection import Selection
from bkrules.build.worker_overrides import WorkerOverrides
from bkrules.commands.own_files import add_own_files, own_modules, own_tools
from bkrules.commands.parser import positive
from bkrules.errors import UsageError
from bkrules.incremental.dependencies import current
from bkrules.plugin.features import UnknownFeature, known

ENABLE, DISABLE = "BUILDKIT_TEST_ENABLE_FEATURES", "BUILDKIT_TEST_DISABLE_FEATURES"
BINARIES = "BUILDKIT_INTEGRATION_CONTAINERD_EXTRA"
SNAPSHOTTER = "BUILDKIT_INTEGRATION_SNAPSHOTTER"
USER = "BUILDKIT_INTEGRATION_ROOTLESS_IDPAIR"
SKIP = "SKIP_INTEGRATION_TESTS"
RANDOM = "BUILDKIT_WORKER_RANDOM"
BUILDKITD = "TEST_BUILDKITD_BINARY"
_SEEDS = 1 << 32
_ANY = "any"
_Read = TypeVar("_Read")


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Add the options that select cells."""
    group = parser.add_argument_group("which cells run")
    group.add_argument(
        "--test_filter",
        action="append",
        default=[],
        metavar="TEXT",
        help="cells with this name, pattern or regular expression: test_x, 'test_*/worker=oci', //worker=oci$, kind=gzip; "
        "with - in front, all but these. Can be repeated",
    )
    group.add_argument(
        "--failed",
        action="store_true",
        help="of the cells, those that failed when they last ran here",
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
        type=_seed,
        metavar="SEED",
        help=f"the cells of one worker of each matrix, chosen by this number; with '{_ANY}' at random, as with {RANDOM}=1",
    )
    group.add_argument(
        "--plan_job",
        type=positive,
        metavar="N",
        help="the cells of job N of a plan of `bk ci plan`; success without a run when the plan needs fewer jobs",
    )
    group.add_argument("--plan", metavar="FILE", help=f"the file of that plan (default: {PLAN})")


def selection_of(arguments: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> Selection:
    """Return the selection of cells. Without a given seed, bk makes one, and does not keep the build's answer. As in
    BuildKit, only 1 enables a variable.
    """
    seed = arguments.random_worker
    if seed == _ANY or (seed is None and environment.get(RANDOM) == "1"):
        current().doubts.append("the worker is chosen at random")
        seed = str(secrets.randbelow(_SEEDS))
    skip = f"skipping integration tests, since {SKIP}=1" if environment.get(SKIP) == "1" else ""
    random = None if seed is None else int(seed)
    return Selection(tuple(arguments.test_filter), arguments.shard, random, skip, arguments.failed, _job(arguments))


def _job(arguments: argparse.Namespace) -> PlanJob | None:
    """Return the job of a plan that the command line names. Raises UsageError, also for another selection with it."""
    if arguments.plan_job is None:
        if arguments.plan is not None:
            raise UsageError("usage", "--plan has no effect without --plan_job", hint="add the number of the job")
        return None
    if arguments.test_filter or arguments.failed or arguments.shard or arguments.random_worker is not None:
        hint = "give the options that select cells to `bk ci plan`"
        raise UsageError("usage", "--plan_job selects cells, so no other option may", hint=hint)
    return job_of(file_of(arguments.plan), arguments.plan_job)


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Add the options that change the workers, and so the keys of their cells."""
    group = parser.add_argument_group("workers")

    def add(name: str, metavar: str, text: str, **settings: Any) -> None:
        group.add_argument(f"--{name}", f"--{name.replace('_', '-')}", metavar=metavar, help=text, **settings)

    add("enable_features", "A,B", f"features that all workers count as having; or {ENABLE}", type=_features)
    add("disable_features", "A,B", f"features that all workers count as lacking; or {DISABLE}", type=_features)
    add("extra_snapshotter", "NAME", f"one more worker of each kind, on this snapshotter; or {SNAPSHOTTER}")
    text = f"one more worker ID, with the tools that DIR of this machine has; or {BINARIES}"
    add("extra_binaries", "ID=DIR", text, type=_binaries, action="append", default=[])
    add(
        "rootless_user",
        "USER",
        f"the user of this machine whose subordinate ids rootless workers use; or {USER}=UID:GID",
    )
    add_own_files(group)


def overrides_of(arguments: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> WorkerOverrides:
    """Return the worker overrides. An option takes precedence over its variable. Raises UsageError."""

    def of_variable(name: str, read: Callable[[str], _Read]) -> _Read:
        try:
            return read(environment.get(name, ""))
        except argparse.ArgumentTypeError as error:
            hint = "a variable of BuildKit's harness, which bk reads too: unset it, or set it right"
            raise UsageError("usage", f"{name}: {error}", hint=hint) from error

    enabled, disabled = (
        of_variable(name, _features) if option is None else option
        for name, option in ((ENABLE, arguments.enable_features), (DISABLE, arguments.disable_features))
    )
    binaries = arguments.extra_binaries or of_variable(BINARIES, lambda text: [_binaries(one) for one in _list(text)])
    user = arguments.rootless_user or of_variable(USER, _user)
    tools = of_variable(BUILDKITD, lambda text: own_tools(arguments, "buildkitd", text))
    snapshotter = arguments.extra_snapshotter or environment.get(SNAPSHOTTER, "")
    return WorkerOverrides(enabled, disabled, snapshotter, tuple(binaries), user, tools, own_modules(arguments))


def _list(text: str) -> list[str]:
    return [part for part in map(str.strip, text.split(",")) if part]


def _features(text: str) -> frozenset[str]:
    try:
        return known(_list(text))
    except UnknownFeature as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _binaries(text: str) -> tuple[str, str]:
    name, _, folder = text.partition("=")
    if not re.fullmatch(r"[\w.+-]+", name) or not os.path.isdir(current().note(os.path.abspath(folder))) or not folder:
        raise argparse.ArgumentTypeError(f"must be ID=DIR, with an existing folder, but was {text!r}")
    return name, os.path.abspath(folder)


def _user(pair: str) -> str:
    """Return the name of the user in `UID:GID`, checked as in BuildKit: only root may have the group of root."""
    if not pair:
        return ""
    match = re.fullmatch(r"(\d+):(\d+)", pair)
    if match is None or (int(match[1]) and not int(match[2])):
        raise argparse.ArgumentTypeError(
            f"must be UID:GID, and no user but root may have the group 0, but was {pair!r}"
        )
    try:
        return pwd.getpwuid(int(match[1])).pw_name
    except KeyError:
        raise argparse.ArgumentTypeError(f"this machine has no user with the id {match[1]}") from None


def _shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)[/-](\d+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise argparse.ArgumentTypeError(f"must be I/N with 1 <= I <= N, but was {text!r}")
    return int(match[1]), int(match[2])


def _seed(text: str) -> str:
    if text != _ANY and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number or '{_ANY}', but was {text!r}")
    return text
