"""The checks of a worker without a cell, and what they report of cells."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from bk_worker_containerd import ContainerdWorker
from bk_worker_containerd_stargz import ContainerdStargzWorker
from bk_worker_oci import OciWorker
from bk_worker_rootless import RootlessWorker

from bkrules.conformance.checks import CHECKS, violations
from bkrules.conformance.facts import differences
from bkrules.plugin import Backend, Daemons, Host, Lack, Mirror, SettingsError, Worker, setting

CHECK: dict[str, Callable[[Worker], str]] = dict(CHECKS)


@dataclass(frozen=True)
class Fake(Worker):
    """A worker that nobody starts."""

    name = "fake"

    size: int = setting(1, "how large")

    def tools(self) -> tuple[str, ...]:
        return ()

    def configuration(self, mirror: Mirror) -> Mapping[str, Mapping[str, Any]]:
        return {}

    @contextmanager
    def start(self, daemons: Daemons) -> Iterator[Backend]:
        yield Backend("", "")


@dataclass(frozen=True)
class Wordless(Fake):
    depth: int = setting(2, "")


@dataclass(frozen=True)
class Unfit(Fake):
    def check(self) -> None:
        raise SettingsError("size", "'size' 1 is too small")


@dataclass(frozen=True)
class Sliced(Fake):
    def id(self) -> str:
        return "fake/2"


@dataclass(frozen=True)
class Mute(Fake):
    def preflight(self, host: Host) -> tuple[Lack, ...]:
        return () if host.root else (Lack("not root", "", "be root"),)


@dataclass(frozen=True)
class Raising(Fake):
    def preflight(self, host: Host) -> tuple[Lack, ...]:
        raise ZeroDivisionError("division by zero")


@pytest.mark.parametrize("worker", [OciWorker(), ContainerdWorker(), ContainerdStargzWorker(), RootlessWorker()])
def test_our_own_workers_keep_every_promise(worker: Worker) -> None:
    assert {promise: check(worker) for promise, check in CHECKS} == dict.fromkeys(CHECK, "")


@pytest.mark.parametrize(
    ("promise", "worker", "problem"),
    [
        ("its settings have help texts and defaults", Wordless(), "no help for depth"),
        (
            "its settings have help texts and defaults",
            Unfit(),
            "it must be a frozen dataclass whose defaults fit together: 'size' 1",
        ),
        ("its id can be a part of a cell's name", Sliced(), "its id() returns 'fake/2'"),
        ("preflight says what a machine lacks", Raising(), "failed in preflight: ZeroDivisionError: division by zero"),
        ("preflight says what a machine lacks", Mute(), "a lack must say what, why and what to do"),
    ],
)
def test_a_broken_promise_is_named(promise: str, worker: Worker, problem: str) -> None:
    assert CHECK[promise](Fake()) == ""
    assert problem in violations(worker, CHECK[promise])


def test_a_worker_that_another_process_does_not_find() -> None:
    assert "KeyError: 'fake'" in CHECK["the values in keys are the same everywhere"](Fake())


def test_settings_go_to_the_other_processes() -> None:
    assert differences(OciWorker(snapshotter="native")) == []
