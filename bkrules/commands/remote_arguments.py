"""The arguments of a remote cache."""

from __future__ import annotations

import argparse
import os
import re
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from bkrules.cache.remote_options import ABSENCE, DOWNLOADS, GRPC, TOPLEVEL, ExecutorOptions, RemoteOptions
from bkrules.commands.parser import positive
from bkrules.errors import MachineLacks, UsageError

HEADERS = "BK_REMOTE_HEADER"
_LONGEST_INSTANCE = 255


def add_remote(parser: argparse.ArgumentParser) -> None:
    """Add the options of a remote cache to a command."""
    group = parser.add_argument_group("remote cache", "Bazel's HTTP cache protocol, or gRPC; any fault of it is a miss")

    def add(name: str, **settings: Any) -> None:
        group.add_argument(f"--{name}", **settings)

    add(
        "remote_cache",
        default="",
        metavar="URL",
        help="http(s)://HOST:PORT, perhaps with a path, or grpc(s)://HOST:PORT",
    )
    add("remote_instance_name", default="", metavar="NAME", help="the instance of a server of gRPC")
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
    add("remote_required", action="store_true", help="fail, with exit code 34, when the remote cache does")
    add("remote_timeout", type=_seconds, default=60.0, metavar="SECONDS", help="of one request (default: 60)")
    add("tls_certificate", default="", metavar="FILE", help="the certificate of the trusted authority, in PEM")
    add("tls_client_certificate", default="", metavar="FILE", help="the certificate of this client, in PEM")
    add("tls_client_key", default="", metavar="FILE", help="the key of that certificate, in PEM")


def add_executor(parser: argparse.ArgumentParser) -> None:
    """Add the options of an engine that runs actions to a command that has those of a remote cache."""
    group = parser.add_argument_group(
        "remote execution", "an engine of the Remote Execution API runs genrules and tests in cells"
    )

    def add(name: str, **settings: Any) -> None:
        group.add_argument(f"--{name}", **settings)

    add(
        "remote_executor",
        default="",
        metavar="URL",
        help="grpc(s)://HOST:PORT; its CAS and its action cache are those of --remote_cache (default: the same URL)",
    )
    add(
        "remote_jobs",
        type=positive,
        default=200,
        metavar="N",
        help="how many actions the engine may run at once, in addition to --jobs here (default: 200)",
    )
    add(
        "remote_queue_timeout",
        type=_seconds,
        default=600.0,
        metavar="SECONDS",
        help="how long an action may wait for a worker (default: 600)",
    )
    add(
        "remote_local_fallback",
        action="store_true",
        help="run an action here when the engine fails to run it",
    )
    add(
        "strategy",
        action="append",
        default=[],
        type=_strategy,
        metavar="MNEMONIC=local|remote",
        help="where actions of a mnemonic run, such as Genrule=local",
    )


def add_downloads(parser: argparse.ArgumentParser) -> None:
    """Add the option about outputs of a remote cache or an engine to a command."""
    parser.add_argument(
        "--remote_download_outputs",
        choices=DOWNLOADS,
        default=TOPLEVEL,
        help="which outputs of the remote cache or the engine are fetched though nothing here needs them: none, those of the "
        "targets of the command line (the default), or all; logs of failures are always fetched",
    )


def executor_of(arguments: argparse.Namespace) -> ExecutorOptions | None:
    """Return the engine of the command line. Raises UsageError, and MachineLacks without grpcio."""
    if not arguments.remote_executor:
        return None
    cache = remote_of(arguments)
    assert cache is not None
    check_upload(cache, "--remote_executor sends inputs")
    server = grpc_server(arguments, cache, arguments.remote_executor, "--remote_executor")
    local = frozenset(mnemonic for mnemonic, place in dict(arguments.strategy).items() if place == "local")
    return ExecutorOptions(
        server, arguments.remote_jobs, arguments.remote_queue_timeout, arguments.remote_local_fallback, local
    )


def check_upload(cache: RemoteOptions, what: str) -> None:
    """Raise UsageError unless bk may write to a remote cache, as `what` it does."""
    if not cache.upload:
        raise UsageError("usage", f"{what}, but --remote_upload_local_results=no forbids that")


def grpc_server(arguments: argparse.Namespace, cache: RemoteOptions, url: str, option: str) -> RemoteOptions:
    """Return another server, which gets the headers and certificates of the remote cache. Raises UsageError and MachineLacks."""
    server = replace(cache, url=url, instance=arguments.remote_instance_name, option=option)
    assert server.address  # or it raises
    _check_grpc(server)
    return server


def _strategy(text: str) -> tuple[str, str]:
    mnemonic, _, place = text.partition("=")
    if not mnemonic or place not in ("local", "remote"):
        raise argparse.ArgumentTypeError(f"must be MNEMONIC=local or MNEMONIC=remote, but was {text!r}")
    return mnemonic, place


def remote_of(arguments: argparse.Namespace) -> RemoteOptions | None:
    """Return the remote cache of the command line and the environment. Raises UsageError, and MachineLacks without grpcio."""
    executor = vars(arguments).get("remote_executor", "")
    if executor and not executor.startswith(GRPC):
        hint = "for example --remote_executor=grpcs://engine.example.com:443"
        raise UsageError("usage", "--remote_executor must be grpc://HOST:PORT or grpcs://HOST:PORT", hint=hint)
    if not (arguments.remote_cache or executor):
        return None
    try:
        more = [_header(line) for line in os.environ.get(HEADERS, "").splitlines() if line]
    except argparse.ArgumentTypeError as error:
        raise UsageError("usage", f"{HEADERS}: {error}") from None
    options = RemoteOptions(
        arguments.remote_cache or executor,
        (*more, *arguments.remote_header),
        arguments.remote_upload_local_results,
        arguments.remote_required,
        arguments.remote_timeout,
        _file(
            "tls_certificate",
            arguments,
            "the authority's certificate in PEM; without the option, bk trusts those of this machine",
        ),
        _client(arguments),
        arguments.remote_instance_name,
        "--remote_cache" if arguments.remote_cache else "--remote_executor",
        ABSENCE if executor else 0.0,
    )
    assert options.address  # or it raises
    if options.is_grpc:
        _check_grpc(options)
    elif options.instance and executor:
        return replace(options, instance="")
    elif options.instance:
        hint = "over HTTP, the path of --remote_cache names the instance"
        raise UsageError("usage", "--remote_instance_name is for a remote cache of gRPC", hint=hint)
    return options


def _check_grpc(options: RemoteOptions) -> None:
    """Raise unless this bk can send the requests of a server of gRPC."""
    for name, value in options.headers:
        if "\t" in value:
            raise UsageError("usage", f"the value of the header {name} has a tab, which gRPC cannot send")
        # The others are gRPC's own, or have bytes as their values.
        if not re.fullmatch(r"(?!grpc-)[a-z0-9_.-]+(?<!-bin)", name.lower()):
            hint = (
                "it may have letters, digits, '_', '.' and '-', must not start with grpc-, and must not end with -bin"
            )
            raise UsageError("usage", f"{name!r} cannot be the name of a header of gRPC", hint=hint)
    if not re.fullmatch(r"[\x20-\x7e]*", options.instance) or len(options.instance) > _LONGEST_INSTANCE:
        raise UsageError(
            "usage", f"--remote_instance_name must be printable ASCII of at most {_LONGEST_INSTANCE} bytes"
        )
    if find_spec("grpc") is None:
        what = f"{options.option}={options.address} needs grpcio, which is not installed"
        hint = "install it next to bk:  pip install 'bkrules[remote]'\nor name the server's HTTP address, if it has one"
        raise MachineLacks("no-grpc", what, hint=hint)


def _client(arguments: argparse.Namespace) -> tuple[str, str] | None:
    """Return the files of the client's certificate and of its key. Raises UsageError."""
    certificate = _file(
        "tls_client_certificate", arguments, "the client's certificate in PEM, for servers that ask for one"
    )
    key = _file("tls_client_key", arguments, "the key of --tls_client_certificate, in PEM")
    if bool(certificate) != bool(key):
        raise UsageError(
            "usage", "--tls_client_certificate and --tls_client_key belong together", hint="give both, or none"
        )
    return (certificate, key) if certificate else None


def _file(option: str, arguments: argparse.Namespace, what: str) -> str:
    """Return the absolute path of an option's file. Raises UsageError when there is none."""
    name: str = getattr(arguments, option)
    path = name and os.path.abspath(name)
    if path and not os.path.isfile(path):
        raise UsageError("usage", f"--{option}: file not found: {path}", hint=f"it is {what}")
    return path


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
