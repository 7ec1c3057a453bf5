"""The parts that several commands share: the parser, groups of arguments, and their values."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from bkrules import errors
from bkrules.build.request import TEST_OUTPUTS, Options, default_cache
from bkrules.cache.remote_options import RemoteOptions
from bkrules.errors import BkError, UsageError
from bkrules.incremental.dependencies import current
from bkrules.model.resources import pool_size, timeouts
from bkrules.system.kernel import KEYS, SERIES

Value = TypeVar("Value")
HEADERS = "BK_REMOTE_HEADER"


class Parser(argparse.ArgumentParser):
    """A parser that raises bk's errors. Options cannot be abbreviated, as in Bazel: a new option must not change the
    meaning of existing command lines.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{**settings, "allow_abbrev": False})

    def error(self, message: str) -> NoReturn:
        # a misspelt word may be a secret too
        message = re.sub(r"(--?remote[^=\s]*[= ]).*", r"\1...", message)
        raise UsageError("usage", f"{self.prog}: {message}", hint=f"see `{self.prog} --help`")

    def options(self) -> dict[str, argparse.Action]:
        """Return the options by each of their spellings."""
        return self._option_string_actions  # argparse has no public list of them

    def option(self, name: str) -> argparse.Action | None:
        """Return the option of that name, or None."""
        return self.options().get(name)


if TYPE_CHECKING:
    from bkrules.analysis.runs import Runs

    Commands = argparse._SubParsersAction[Parser]  # argparse has no public name for what add_subparsers returns


def spelled_out(word: str) -> str:
    """Return a word of a command line as argparse understands it.

    argparse would take the pattern `-//x` for an option; with a leading space it does not. It has no options with
    optional values that are never in the next word.
    """
    if word.startswith("-//"):
        return f" {word}"
    return "-t" if word.replace("-", "_") == "__cache_test_results" else word


def command(commands: Commands, name: str, run: Callable[[argparse.Namespace], int], text: str) -> Parser:
    """Return a new command, which calls `run`."""
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(command=run, name=name)
    parser.add_argument("--config", metavar="NAME", help="also use the lines of .bkrc files for COMMAND:NAME")
    parser.add_argument("--noplugin", action="append", default=[], metavar="NAME", help="disable this plugin")
    return parser


def add_patterns(parser: argparse.ArgumentParser) -> None:
    """Add target patterns to a command."""
    parser.add_argument("patterns", nargs="+", metavar="PATTERN", help="//pkg:name, //pkg:all, //pkg/..., -//pkg:name")


def add_cache(parser: argparse.ArgumentParser) -> None:
    """Add `--disk_cache` to a command."""
    parser.add_argument(
        "--disk_cache",
        "--disk-cache",
        default=default_cache(),
        type=_utf8,
        metavar="DIR",
        help="where results are kept (default: %(default)s)",
    )


def _utf8(path: str) -> str:
    """Return a path that is valid UTF-8, as configurations and messages between processes are."""
    try:
        path.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"the path is not UTF-8: {path!a}") from None
    return path


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
        "--keep-going",
        action="store_true",
        help="keep building targets that do not depend on a failed one",
    )
    parser.add_argument(
        "--nokeep_going",
        "--nokeep-going",
        dest="keep_going",
        action="store_false",
        help="undoes the same option of a .bkrc",
    )
    add_scheduling(parser)
    add_tests(parser)
    add_cells(parser)
    parser.add_argument(
        "--build_event_json_file",
        "--build-event-json-file",
        default="",
        metavar="FILE",
        help="write events while the build runs, as JSON lines of Bazel's Build Event Protocol",
    )
    add_cache(parser)
    add_remote(parser)


def add_scheduling(parser: argparse.ArgumentParser) -> None:
    """Add the options of scheduling: when actions run, for how long, and what is shown; no key covers them."""
    group = parser.add_argument_group("scheduling")
    group.add_argument(
        "--local_resources",
        "--local-resources",
        action="append",
        default=[],
        type=_as_argument(pool_size),
        metavar="NAME=N",
        help="how much of a resource this machine has: cpu (default: --jobs), memory in MiB (default: HOST_RAM*.67), or what tags "
        "such as resources:gpu:1 name",
    )
    group.add_argument(
        "--test_keep_going",
        "--test-keep-going",
        action="store_true",
        default=True,
        help="continue after a failed cell (the default)",
    )
    group.add_argument(
        "--notest_keep_going",
        "--notest-keep-going",
        dest="test_keep_going",
        action="store_false",
        help="end the build at the first failed cell",
    )
    group.add_argument(
        "--test_timeout",
        "--test-timeout",
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
    group.add_argument(f"--{dest}", "--cache-test-results", choices=words, default="auto", help=help_text)
    group.add_argument("-t", dest=dest, action="store_const", const="yes", help="the same as --cache_test_results=yes")
    group.add_argument(
        "-t-",
        "--nocache_test_results",
        "--nocache-test-results",
        dest=dest,
        action="store_const",
        const="no",
        help="the same as --cache_test_results=no: every cell runs",
    )
    group.add_argument(
        "--flaky_test_attempts",
        "--flaky-test-attempts",
        type=_attempts,
        metavar="N",
        help="how often a test that fails may run; default: 3 times in a matrix with flaky = True, else once",
    )
    group.add_argument(
        "--test_output",
        "--test-output",
        choices=TEST_OUTPUTS,
        default="errors",
        help="of tests: nothing; the ends of the logs of those that fail (the default); each log when its test ends; "
        "each line when it is written, one test at a time",
    )


def add_cells(parser: argparse.ArgumentParser) -> None:
    """Add the options that change the cells, and so their keys."""
    group = parser.add_argument_group("cells")
    group.add_argument(
        "--runs_per_test",
        "--runs-per-test",
        type=positive,
        default=1,
        metavar="N",
        help="run each cell so often, each time with another TEST_RUN_NUMBER",
    )
    group.add_argument(
        "--test_env",
        "--test-env",
        action="append",
        default=[],
        type=_variable,
        metavar="NAME=VALUE",
        help="a variable for every cell; NAME alone takes this environment's value. The value is in the key",
    )
    group.add_argument(
        "--kernel_key",
        "--kernel-key",
        choices=KEYS,
        default=SERIES,
        help="how much of the kernel is in the keys of cells: its series, such as 6.12, with its security modules, cgroups and "
        "binary formats (default); the whole release in place of the series; or nothing",
    )


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
    return Runs(arguments.runs_per_test, tuple(sorted(environment.items())), arguments.kernel_key)


def _variable(text: str) -> tuple[str, str | None]:
    from bkrules.analysis.runs import FIXED

    name, equals, value = text.partition("=")
    if not name.isidentifier() or not name.isascii():
        raise argparse.ArgumentTypeError(f"must be NAME=VALUE or NAME, but was {text!r}")
    if name in FIXED:
        raise argparse.ArgumentTypeError(f"{name} is bk's own in a cell, like {', '.join(sorted(FIXED - {name}))}")
    return name, value if equals else None


def _attempts(text: str) -> int | None:
    return None if text == "default" else positive(text)


def add_remote(parser: argparse.ArgumentParser) -> None:
    """Add the options of a remote cache to a command."""
    group = parser.add_argument_group("remote cache", "Bazel's HTTP cache protocol; any fault of it is a miss")

    def add(name: str, **settings: Any) -> None:
        group.add_argument(f"--{name}", *([f"--{name.replace('_', '-')}"]), **settings)

    add("remote_cache", default="", metavar="URL", help="http://HOST:PORT or https://HOST:PORT, perhaps with a path")
    add(
        "remote_header",
        action="append",
        default=[],
        type=_header,
        metavar="NAME=VALUE",
        help=f"a header of each request; also one a line in {HEADERS}, where `ps` does not show it",
    )
    add(
        "remote_upload_local_results",
        type=_yes,
        default=True,
        metavar="yes|no",
        help="upload the results of this machine",
    )
    add("remote_required", action="store_true", help="fail, with exit code 36, when the remote cache does")
    add("remote_timeout", type=_seconds, default=60.0, metavar="SECONDS", help="of one request (default: 60)")
    add("tls_certificate", default="", metavar="FILE", help="the certificate of the trusted authority, in PEM")


def _header(text: str) -> tuple[str, str]:
    """Return a header. An error does not show it, since it may be a secret."""
    name, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
        raise argparse.ArgumentTypeError("must be NAME=VALUE")
    if value != value.strip() or not re.fullmatch(r"[\t\x20-\x7e]*", value):
        raise argparse.ArgumentTypeError(f"the value of {name} must be printable ASCII, without spaces around it")
    return name, value


def _as_argument(parse: Callable[[str], Value]) -> Callable[[str], Value]:
    """Return a function whose ValueErrors argparse prints."""

    def call(text: str) -> Value:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return call


def _yes(text: str) -> bool:
    words = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
    if text not in words:
        raise argparse.ArgumentTypeError(f"must be yes or no, but was {text!r}")
    return words[text]


def _seconds(text: str) -> float:
    if not re.fullmatch(r"\d+(\.\d+)?", text) or float(text) <= 0:
        raise argparse.ArgumentTypeError(f"must be a positive number of seconds, but was {text!r}")
    return float(text)


def remote_of(arguments: argparse.Namespace) -> RemoteOptions | None:
    """Return the remote cache of the command line and the environment. Raises UsageError."""
    if not arguments.remote_cache:
        return None
    try:
        more = [_header(line) for line in os.environ.get(HEADERS, "").splitlines() if line]
    except argparse.ArgumentTypeError as error:
        raise UsageError("usage", f"{HEADERS}: {error}") from None
    certificate = arguments.tls_certificate and os.path.abspath(arguments.tls_certificate)
    if certificate and not os.path.isfile(certificate):
        raise UsageError("usage", f"--tls_certificate: file not found: {certificate}")
    options = RemoteOptions(
        arguments.remote_cache,
        (*more, *arguments.remote_header),
        arguments.remote_upload_local_results,
        arguments.remote_required,
        arguments.remote_timeout,
        certificate,
    )
    assert options.address  # or it raises
    return options


def positive(text: str) -> int:
    """Return the value of an option that is a positive whole number."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive number, but was {text!r}")
    return int(text)


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
        cache_test_results=arguments.cache_test_results,
        test_attempts=arguments.flaky_test_attempts,
        test_output=arguments.test_output,
    )


def _writable(path: str) -> str:
    """Return the absolute path of a file that is written at the end of a build. Raises UsageError now when it cannot be."""
    if not path:
        return ""
    path = os.path.abspath(path)
    if os.path.isdir(path) or not os.access(os.path.dirname(path), os.W_OK):
        raise UsageError("usage", f"--profile: cannot write the file {path}")
    return path


def patterns_of(arguments: argparse.Namespace) -> list[str]:
    """Return the target patterns of the command line."""
    return [text.strip() for text in arguments.patterns]


def nothing(message: str, hint: str) -> BkError:
    """Return the error of a command that found nothing to do."""
    error = BkError("nothing-ran", message, hint=hint)
    error.exit_code = errors.NOTHING_RAN
    return error
