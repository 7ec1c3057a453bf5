"""The arguments of a remote cache."""

from __future__ import annotations

import argparse
import os
import re
from typing import Any

from bkrules.cache.remote_options import RemoteOptions
from bkrules.errors import UsageError

HEADERS = "BK_REMOTE_HEADER"


def add_remote(parser: argparse.ArgumentParser) -> None:
    """Add the options of a remote cache to a command."""
    group = parser.add_argument_group("remote cache", "Bazel's HTTP cache protocol; any fault of it is a miss")

    def add(name: str, **settings: Any) -> None:
        group.add_argument(f"--{name}", **settings)

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
        hint = "it is the authority's certificate in PEM; without the option, bk trusts those of this machine"
        raise UsageError("usage", f"--tls_certificate: file not found: {certificate}", hint=hint)
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


def _header(text: str) -> tuple[str, str]:
    """Return a header. An error does not show it, since it may be a secret."""
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
