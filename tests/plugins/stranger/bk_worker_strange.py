"""A worker that somebody else wrote: the OCI worker on the native snapshotter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bkrules.plugin import Backend, Daemons, Mirror, Register, Worker, buildkitd, hookimpl


@dataclass(frozen=True)
class StrangeWorker(Worker):
    """buildkitd with nothing but what every machine has."""

    name = "strange"

    def tools(self) -> tuple[str, ...]:
        return ("buildkitd", "runc")

    def configuration(self, mirror: Mirror) -> Mapping[str, Mapping[str, Any]]:
        return {buildkitd.CONFIGURATION: buildkitd.configuration(mirror)}

    @contextmanager
    def start(self, daemons: Daemons) -> Iterator[Backend]:
        flags = [*buildkitd.OCI_FLAGS, "--oci-worker-snapshotter=native"]
        yield Backend(address=buildkitd.start(daemons, flags), snapshotter="native")


@hookimpl
def bk_register_workers(register: Register) -> None:
    """The workers of this distribution."""
    register(StrangeWorker)
