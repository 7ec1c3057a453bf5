"""Resources of the machine that actions use while they run, in Bazel's words: tags, sizes of tests, `--local_resources`.

No key covers them: they change when an action runs, and not what it makes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from bkrules.errors import is_near

CPU, MEMORY = "cpu", "memory"
RESOURCES = "resources"
EXCLUSIVE, MANUAL = "exclusive", "manual"
_RERUN = "bk keeps a result until something that it depends on changes; --cache_test_results=no runs cells again"
_UNSENT = "--remote_upload_local_results=no sends no result to a remote cache"
_SANDBOXED = "every action runs in a sandbox; declare what it needs of the machine, with host_binary or 'data'"
ONLY_IN_BAZEL: Mapping[str, str] = {
    "exclusive-if-local": "did you mean 'exclusive'?",
    "external": _RERUN,
    "local": _SANDBOXED,
    "no-cache": _RERUN,
    "no-remote": _UNSENT,
    "no-remote-cache": _UNSENT,
    "no-remote-cache-upload": _UNSENT,
    "no-sandbox": _SANDBOXED,
    "requires-network": "no action has a network; http_file fetches files, and a 'mirror' has the images of a test",
}
"""Tags that change what Bazel does, and that bk does not act on: what bk has instead."""
_TAG = re.compile(r"(?:(cpu)|resources:([\w.-]+)):(\d+(?:\.\d+)?)").fullmatch
_SIZE = re.compile(r"(?:(HOST_CPUS|HOST_RAM)(?:([*-])(\d*\.?\d+))?|(\d*\.?\d+))").fullmatch
_OF_MEMORY = "HOST_RAM*.67"  # Bazel's default: the rest is for the user's own work, and for the kernel's caches
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True, slots=True)
class Request:
    """The resources of an action while it runs: cores of `cpu`, MiB of `memory`, numbers of named resources.

    With `exclusive`, the action runs alone; `elsewhere`, on another machine. `worker` names the running worker that it shares
    with other tests, each of which has it alone for a time; empty for none. The defaults are Bazel's for an action without tags.
    """

    resources: tuple[tuple[str, float], ...] = ((CPU, 1.0), (MEMORY, 250.0))
    exclusive: bool = False
    elsewhere: bool = False
    worker: str = ""


UNASKED = Request()
ELSEWHERE = Request((), elsewhere=True)


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of an ordinary action.

    `memory` in MiB includes the action's disk; `pids` counts processes and threads; `disk` in MiB is for its root with
    /tmp and its outputs; `timeout` is in seconds.
    """

    memory: int = 6144
    pids: int = 4096
    disk: int = 4096
    timeout: int = 3600


LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Size:
    """The limits of a test by its size: seconds, and MiB of memory as an estimate.

    The numbers are Bazel's; a cell with its daemons that builds small images was seen to take 40 to 100 MiB.
    """

    timeout: int
    memory: float


SIZES: Mapping[str, Size] = {
    "small": Size(60, 20.0),
    "medium": Size(300, 100.0),
    "large": Size(900, 300.0),
    "enormous": Size(3600, 800.0),
}

TIMEOUTS: Mapping[str, str] = {"short": "small", "moderate": "medium", "long": "large", "eternal": "enormous"}
"""Bazel's names of timeouts, and the sizes that have these."""


def meant_tag(tag: str) -> str:
    """Return the tag of bk from which a tag differs in one letter, or in its case; an empty text for every other tag."""
    name, colon, rest = tag.partition(":")
    known = (CPU, RESOURCES) if colon else (EXCLUSIVE, MANUAL)
    if name in known:
        return ""
    # A tag such as `gpu:1` is not meant as `cpu:1`: a typing mistake seldom changes the first letter.
    near = (one for one in known if name.lower() == one or (name[:1] == one[0] and is_near(name, one)))
    meant = next(near, "")
    return f"{meant}{colon}{rest}" if meant else ""


def request_of(tags: Iterable[str], memory: float) -> Request:
    """Return the request of an action whose target has these tags: `cpu:N`, `resources:NAME:N` and `exclusive`. Other
    tags are ignored.

    `memory` is the default in MiB. Raises ValueError for a tag that nearly matches one of these.
    """
    asked: dict[str, float] = {CPU: 1.0, MEMORY: memory}
    exclusive = False
    for tag in tags:
        if tag == EXCLUSIVE:
            exclusive = True
        elif tag.partition(":")[0] in (CPU, RESOURCES):
            found = _TAG(tag)
            if found is None or float(found[3]) <= 0:
                raise ValueError(f"the tag {tag!r} must be cpu:N or resources:NAME:N, with a positive number N")
            asked[found[1] or found[2]] = float(found[3])
    return Request(tuple(sorted(asked.items())), exclusive)


def pool_size(text: str) -> tuple[str, float]:
    """Return name and size of a pool from `NAME=N`. Raises ValueError.

    N is a number, or HOST_CPUS or HOST_RAM (MiB), optionally followed by `*N` or `-N`.
    """
    name, _, value = text.partition("=")
    found = _SIZE(value)
    if not re.fullmatch(r"[\w.-]+", name) or found is None:
        raise ValueError(f"must be NAME=N, such as memory=8000, memory=HOST_RAM*.5 or gpu=1, but was {text!r}")
    size = float(found[4] or (host_memory() if found[1] == "HOST_RAM" else os.cpu_count() or 1))
    if found[2]:
        size = size * float(found[3]) if found[2] == "*" else size - float(found[3])
    if size < 0:
        raise ValueError(f"must not be negative, but {value} is {size:g}")
    return name, size


def pool_sizes(jobs: int, declared: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Return the sizes of all pools: those declared, and by default a core for each job and two thirds of the memory."""
    return {CPU: float(jobs), **dict([pool_size(f"{MEMORY}={_OF_MEMORY}")]), **dict(declared)}


def host_memory() -> float:
    """Return the memory in MiB of this machine, or of the container in which bk runs."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in _LIMITS:
        with suppress(OSError, ValueError), open(path) as file:
            found.append(int(file.read()))
    return min(found) / (1 << 20)


def timeouts(text: str) -> dict[str, int]:
    """Return seconds by test size from `N`, or from `N,N,N,N` for small, medium, large and enormous; -1 stands for the
    default of a size.

    Raises ValueError.
    """
    words = text.split(",")
    if len(words) not in (1, len(SIZES)) or not all(re.fullmatch(r"-1|[1-9]\d*", word) for word in words):
        raise ValueError(f"must be seconds for all tests, or four numbers for {', '.join(SIZES)}, but was {text!r}")
    given = words * len(SIZES) if len(words) == 1 else words
    return {name: int(word) for name, word in zip(SIZES, given, strict=True) if word != "-1"}
