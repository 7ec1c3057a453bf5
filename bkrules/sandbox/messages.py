"""The messages between bk, the zygote and the processes that run the commands of ordinary actions.

bk --CommandSpec--> zygote --fork--> process --CommandEnd--> bk
bk --SandboxesSpec--> zygote --fork--> process, to which bk then sends one SandboxedCommand after the other
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from bkrules.model.wire import Wire


@dataclass(frozen=True)
class Request(Wire):
    """A request to the zygote, which comes with its specification as a file."""


@dataclass(frozen=True, kw_only=True)
class Command(Wire):
    """A command, the folder in which it starts, and its environment."""

    arguments: tuple[str, ...]
    directory: str
    environment: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class CommandSpec(Command):
    """A process that runs one command without a sandbox."""

    TAG: ClassVar = ("kind", "command")


@dataclass(frozen=True)
class SandboxesSpec(Wire):
    """A process that runs commands in sandboxes whose roots are mounted on `root`, in this cgroup; an empty path is no cgroup."""

    TAG: ClassVar = ("kind", "sandboxes")

    root: str
    cgroup: str
    limited: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class SandboxedCommand(Command):
    """A command in a sandbox. `timeout` is in seconds, 0 for none; `disk` is in bytes.

    The rest is what the command sees, as `spawner.CommandSandbox` says.
    """

    timeout: float
    binds: tuple[tuple[str, str, bool], ...]
    copies: tuple[tuple[str, str], ...]
    links: tuple[tuple[str, str], ...]
    folders: tuple[str, ...]
    out: str
    disk: int


@dataclass(frozen=True)
class CommandEnd(Wire):
    """How a command ended: its exit code, 128 + n for signal n, and the limit that it met, if any.

    One that was not started has a `reason`.
    """

    TAG: ClassVar = ("event", "result")

    exit_code: int
    over: str = ""
    reason: str = ""
