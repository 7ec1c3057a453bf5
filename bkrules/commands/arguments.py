"""What several commands share: the parser, groups of arguments, and what they mean."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from bkrules import errors
from bkrules.build import Options
from bkrules.cache.remote_options import RemoteOptions
from bkrules.errors import BkError, UsageError

HEADERS = "BK_REMOTE_HEADER"


class Parser(argparse.ArgumentParser):
    """A parser whose errors are bk's own."""

    def error(self, message: str) -> NoReturn:
        # what is misspelt may be a secret all the same
        message = re.sub(r"(--?remote[^=\s]*[= ]).*", r"\1...", message)
        raise UsageError("usage", f"{self.prog}: {message}", hint=f"see `{self.prog} --help`")


if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[Parser]  # argparse has no public name for what add_subparsers returns


def command(commands: Commands, name: str, run: Callable[[argparse.Namespace], int], text: str) -> Parser:
    """A new command, which `run` carries out."""
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(command=run)
    return parser


def add_patterns(parser: argparse.ArgumentParser) -> None:
    """Let a command take target patterns."""
    parser.add_argument("patterns", nargs="+", metavar="PATTERN", help="//pkg:name, //pkg:all, //pkg/..., -//pkg:name")


def add_cache(parser: argparse.ArgumentParser) -> None:
    """Let a command take `--disk_cache`."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "bk")
    parser.add_argument(
        "--disk_cache",
        "--disk-cache",
        default=str(home),
        metavar="DIR",
        help="where results are kept (default: %(default)s)",
    )


def add_execution(parser: argparse.ArgumentParser) -> None:
    """Let a command take all that says how to build."""
    parser.add_argument(
        "-j",
        "--jobs",
        type=_jobs,
        default=os.cpu_count() or 1,
        metavar="N",
        help="how many actions run at once (default: the cores)",
    )
    parser.add_argument(
        "-k", "--keep_going", "--keep-going", action="store_true", help="go on with what does not depend on a failure"
    )
    add_cache(parser)
    add_remote(parser)


def add_remote(parser: argparse.ArgumentParser) -> None:
    """Let a command take the options of a remote cache."""
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
    add("remote_upload_local_results", type=_yes, default=True, metavar="yes|no", help="send what ran here")
    add("remote_required", action="store_true", help="fail, with exit code 36, when the remote cache does")
    add("remote_timeout", type=_seconds, default=60.0, metavar="SECONDS", help="for one request (default: 60)")
    add("tls_certificate", default="", metavar="FILE", help="the certificate of the authority to trust, in PEM")


def _header(text: str) -> tuple[str, str]:
    """A header; what is wrong with it is said without it, since it may be a secret."""
    name, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
        raise argparse.ArgumentTypeError("must be NAME=VALUE")
    if value != value.strip() or not re.fullmatch(r"[\t\x20-\x7e]*", value):
        raise argparse.ArgumentTypeError(f"the value of {name} must be printable ASCII, without spaces around it")
    return name, value


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
    """The remote cache that the command line and the environment name. Raises UsageError."""
    if not arguments.remote_cache:
        return None
    try:
        more = [_header(line) for line in os.environ.get(HEADERS, "").splitlines() if line]
    except argparse.ArgumentTypeError as error:
        raise UsageError("usage", f"{HEADERS}: {error}") from None
    certificate = arguments.tls_certificate and os.path.abspath(arguments.tls_certificate)
    if certificate and not os.path.isfile(certificate):
        raise UsageError("usage", f"--tls_certificate: there is no file {certificate}")
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


def _jobs(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive number, but was {text!r}")
    return int(text)


def options_of(arguments: argparse.Namespace) -> Options:
    """How to build, as the command line says it. Raises UsageError."""
    return Options(
        arguments.jobs, os.path.abspath(arguments.disk_cache), arguments.keep_going, remote=remote_of(arguments)
    )


def patterns_of(arguments: argparse.Namespace) -> list[str]:
    """The target patterns of the command line."""
    return [text.strip() for text in arguments.patterns]


def nothing(message: str, hint: str) -> BkError:
    """The error of a command that found nothing to do."""
    error = BkError("nothing-ran", message, hint=hint)
    error.exit_code = errors.NOTHING_RAN
    return error
