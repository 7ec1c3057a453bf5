"""The arguments of builds: scheduling, results of tests, and cells."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from bkrules.build.request import TEST_OUTPUTS, Options
from bkrules.commands.parser import add_cache, positive
from bkrules.commands.remote_arguments import add_downloads, add_executor, add_remote, executor_of, remote_of
from bkrules.errors import UsageError
from bkrules.incremental.dependencies import current
from bkrules.model.resources import pool_size, timeouts
from bkrules.system import colours
from bkrules.system.kernel import KEYS, SERIES

if TYPE_CHECKING:
    from bkrules.analysis.runs import Runs

Value = TypeVar("Value")


def add_execution(parser: argparse.ArgumentParser) -> None:
    """Add the options of the build to a command."""
    parser.add_argument(
        "-j",
        "--jobs",
        type=positive,
        default=os.cpu_count() or 1,
        metavar="N",
        help="how many actions run at once (default: the cores)",
    )
    parser.add_argument(
        "-k",
        "--keep_going",
        action="store_true",
        help="keep building targets that do not depend on a failed one",
    )
    parser.add_argument(
        "--nokeep_going",
        dest="keep_going",
        action="store_false",
        help="undoes the same option of a .bkrc",
    )
    add_scheduling(parser)
    add_tests(parser)
    add_cells(parser)
    parser.add_argument(
        "--build_event_json_file",
        default="",
        metavar="FILE",
        help="write events while the build runs, as JSON lines of Bazel's Build Event Protocol",
    )
    parser.add_argument(
        "--color",
        choices=colours.CHOICES,
        default="auto",
        help="colours; auto: on a terminal, unless NO_COLOR or TERM=dumb is set, and with FORCE_COLOR (default: auto)",
    )
    add_cache(parser)
    add_remote(parser)
    add_executor(parser)
    add_downloads(parser)


def add_scheduling(parser: argparse.ArgumentParser) -> None:
    """Add the options of scheduling: when actions run, for how long, and what is shown; no key covers them."""
    group = parser.add_argument_group("scheduling")
    group.add_argument(
        "--local_resources",
        action="append",
        default=[],
        type=_as_argument(pool_size),
        metavar="NAME=N",
        help="how much of a resource this machine has: cpu (default: --jobs), memory in MiB (default: HOST_RAM*.67), or what tags "
        "such as resources:gpu:1 name",
    )
    group.add_argument(
        "--test_keep_going",
        action="store_true",
        default=True,
        help="continue after a failed cell (the default)",
    )
    group.add_argument(
        "--notest_keep_going",
        dest="test_keep_going",
        action="store_false",
        help="end the build at the first failed cell",
    )
    group.add_argument(
        "--test_timeout",
        type=_as_argument(timeouts),
        default={},
        metavar="N[,N,N,N]",
        help="seconds that a cell may take, for all or by size, whatever its matrix says",
    )
    group.add_argument(
        "--profile", default="", metavar="FILE", help="write a Chrome trace of the build; FILE.gz is compressed"
    )


def add_tests(parser: argparse.ArgumentParser) -> None:
    """Add the options for results of tests that no key covers."""
    group = parser.add_argument_group("tests")
    dest = "cache_test_results"
    words = ("auto", "yes", "no")
    help_text = "whether a cached result of a cell may be used; auto: unless there are several runs (default: auto)"
    group.add_argument(f"--{dest}", choices=words, default="auto", help=help_text)
    group.add_argument("-t", dest=dest, action="store_const", const="yes", help="the same as --cache_test_results=yes")
    group.add_argument(
        "-t-",
        "--nocache_test_results",
        dest=dest,
        action="store_const",
        const="no",
        help="the same as --cache_test_results=no: every cell runs",
    )
    group.add_argument(
        "--flaky_test_attempts",
        type=_attempts,
        metavar="N",
        help="how often a test that fails may run; default: 3 times in a matrix with flaky = True, else once",
    )
    group.add_argument(
        "--test_output",
        choices=TEST_OUTPUTS,
        default="errors",
        help="of tests: nothing; the ends of the logs of those that fail (the default); each log when its test ends; "
        "each line when it is written, one test at a time",
    )


def _attempts(text: str) -> int | None:
    return None if text == "default" else positive(text)


def add_cells(parser: argparse.ArgumentParser) -> None:
    """Add the options that change keys: of cells, and of actions that can run elsewhere."""
    group = parser.add_argument_group("cells")
    group.add_argument(
        "--runs_per_test",
        type=positive,
        default=1,
        metavar="N",
        help="run each cell so often, each time with another TEST_RUN_NUMBER",
    )
    group.add_argument(
        "--test_env",
        action="append",
        default=[],
        type=_variable,
        metavar="NAME=VALUE",
        help="a variable for every cell; NAME alone takes this environment's value. The value is in the key",
    )
    group.add_argument(
        "--kernel_key",
        choices=KEYS,
        default=SERIES,
        help="how much of the kernel is in the keys of cells: its series, such as 6.12, with its security modules, cgroups and "
        "binary formats (default); the whole release in place of the series; or nothing",
    )
    parser.add_argument(
        "--remote_default_exec_properties",
        action="append",
        default=[],
        type=property_of,
        metavar="NAME=VALUE",
        help="a property that another machine must have for actions whose targets have no exec_properties; in the key",
    )


def property_of(text: str) -> tuple[str, str]:
    """Return name and value of a property of a machine. Raises ArgumentTypeError."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"must be NAME=VALUE, but was {text!r}")
    return name, value


def _variable(text: str) -> tuple[str, str | None]:
    from bkrules.analysis.runs import FIXED

    name, equals, value = text.partition("=")
    if not name.isidentifier() or not name.isascii():
        raise argparse.ArgumentTypeError(f"must be NAME=VALUE or NAME, but was {text!r}")
    if name in FIXED:
        raise argparse.ArgumentTypeError(f"{name} is bk's own in a cell, like {', '.join(sorted(FIXED - {name}))}")
    return name, value if equals else None


def _as_argument(parse: Callable[[str], Value]) -> Callable[[str], Value]:
    """Return a function whose ValueErrors argparse prints."""

    def call(text: str) -> Value:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return call


def options_of(arguments: argparse.Namespace) -> Options:
    """Return the options of the build. Raises UsageError."""
    return Options(
        1 if arguments.test_output == "streamed" else arguments.jobs,
        os.path.abspath(arguments.disk_cache),
        arguments.keep_going,
        arguments.test_keep_going,
        tuple(arguments.local_resources),
        arguments.test_timeout,
        _writable(arguments.profile),
        remote=remote_of(arguments),
        executor=executor_of(arguments),
        downloads=arguments.remote_download_outputs,
        cache_test_results=arguments.cache_test_results,
        test_attempts=arguments.flaky_test_attempts,
        test_output=arguments.test_output,
        color=arguments.color,
    )


def _writable(path: str) -> str:
    """Return the absolute path of a file that is written at the end of a build. Raises UsageError now when it cannot be."""
    if not path:
        return ""
    path = os.path.abspath(path)
    folder = os.path.dirname(path)
    if os.path.isdir(path):
        raise UsageError("usage", f"--profile: cannot write the file {path}", hint="it is a folder: name a file in it")
    if not os.access(folder, os.W_OK):
        hint = f"make {folder} writable" if os.path.isdir(folder) else f"make the folder first:  mkdir -p {folder}"
        raise UsageError("usage", f"--profile: cannot write the file {path}", hint=hint)
    return path


def runs_of(arguments: argparse.Namespace) -> Runs:
    """Return the number of runs of each cell, and their environment. Raises UsageError."""
    from bkrules.analysis.runs import Runs

    environment = {}
    for name, value in arguments.test_env:
        if value is None:
            current().doubts.append(f"--test_env={name} takes the value of this environment")
            if name not in os.environ:
                continue  # as in Bazel: a variable that does not exist is not passed on
        environment[name] = os.environ[name] if value is None else value
    properties = tuple(sorted(dict(arguments.remote_default_exec_properties).items()))
    return Runs(arguments.runs_per_test, tuple(sorted(environment.items())), arguments.kernel_key, properties)
