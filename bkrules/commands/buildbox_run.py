"""`bk-buildbox-run`: the runner that buildbox-casd calls for each action, as its option `--buildbox-run` names it.

casd expects the ActionResult in a file, also of a command that fails. A status in a second file, and an exit code, say
that this machine could not run the action.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from bkrules.cache.remote_options import GRPC, RemoteOptions
from bkrules.commands.parser import add_cache
from bkrules.commands.run_action import add_machine, machine_of
from bkrules.errors import BkError, MachineLacks, RemoteFailed, of_machine
from bkrules.model import digest, reapi

_CANCELLED, _INVALID, _PRECONDITION, _INTERNAL, _UNAVAILABLE = 1, 3, 9, 13, 14
_CODES = {"absent-blob": _PRECONDITION, "not-portable": _INVALID}
"""The codes of errors by their reasons."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the action of a file. Return 0 when its result is written, and 1 when an error is."""
    arguments, _ = _parser().parse_known_args(argv)  # casd passes options of buildbox-run that tell bk nothing
    if arguments.validate_parameters:
        return 0
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # inherited as ignored, it would take the exit codes of children
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # casd blocks SIGTERM, which it sends to cancel and when it dies
    try:
        data = _answer(arguments)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    except KeyboardInterrupt:
        return _failed(arguments, _CANCELLED, "the action was cancelled")
    except BkError as error:
        return _failed(arguments, _code_of(error), str(error))
    except OSError as error:
        lack = of_machine(error)
        if lack is None:
            raise
        return _failed(arguments, _UNAVAILABLE, str(lack))
    Path(arguments.action_result).write_bytes(data)
    return 0


def _stop(number: int, _frame: FrameType | None) -> None:
    """End the action. A second signal would end its end."""
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _failed(arguments: argparse.Namespace, code: int, message: str) -> int:
    """Write the status of an error. Return the exit code."""
    print(message, file=sys.stderr)
    status = {"code": code, "message": message}
    Path(f"{arguments.action_result}.error-status").write_bytes(reapi.encode("Status", status))
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "bk-buildbox-run", description="Run an action for buildbox-casd.", allow_abbrev=False
    )
    parser.add_argument("--validate-parameters", action="store_true", help="only check the options")
    for name, what in (
        ("remote", "the address of casd"),
        ("instance", "the instance of its services"),
        ("action", "the file with the action"),
        ("action-result", "the file for the result"),
    ):
        parser.add_argument(f"--{name}", default="", help=what)
    add_machine(parser)
    add_cache(parser)
    return parser


def _answer(arguments: argparse.Namespace) -> bytes:
    """Return the ActionResult. Raises BkError."""
    from bkrules.build.run_action import answer

    scheme, _, place = arguments.remote.rpartition("://")
    address = f"{GRPC[scheme == 'https']}{place}"
    options = RemoteOptions(address, instance=arguments.instance, required=True)
    return answer(digest.of_bytes(Path(arguments.action).read_bytes()), options, machine_of(arguments))


def _code_of(error: BkError) -> int:
    """Return the code of the status of an error."""
    if isinstance(error, MachineLacks):
        return _PRECONDITION
    return _CODES.get(error.reason, _UNAVAILABLE if isinstance(error, RemoteFailed) else _INTERNAL)


if __name__ == "__main__":
    sys.exit(main())
