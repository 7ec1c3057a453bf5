"""The sandbox: a running backend, its mirror, and the point of the matrix, as a test sees them."""

from __future__ import annotations

import itertools
import math
import os
import re
import shlex
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from signal import Signals
from typing import Any

from bkrules.errors import did_you_mean
from bkrules.mirror.record import MirrorRequest
from bkrules.model.parameters import AxisValue
from bkrules.plugin.cell_log import NAME as CELL_LOG
from bkrules.plugin.daemon import Daemons
from bkrules.plugin.worker import MIRROR_ADDRESS, Backend, Tls
from bkrules.testing import debug, mirror
from bkrules.testing.command import Command, CommandFailed
from bkrules.testing.control import Control, ControlFailed
from bkrules.testing.mirror import MirrorFailed
from bkrules.testing.started import wait_until_ready

__all__ = ["CommandFailed", "ControlFailed", "MirrorFailed", "OutOfTime", "Sandbox", "Uncounted"]

_WAIT = 10.0


class OutOfTime(BaseException):
    """The cell's time is over. Raised in the test, wherever it is, so that its report shows that place.

    It is not an Exception, so that a test which retries after each error ends all the same.
    """


class Uncounted(Exception):
    """bk could not count all requests between this cell and its mirror, so no number of requests or bytes is right."""


@dataclass(frozen=True)
class Before:
    """The history of a shared worker before a test: bytes of each log, and the number of requests to the mirror."""

    logs: Mapping[str, int] = field(default_factory=dict)
    requests: int = 0


@dataclass(frozen=True)
class Sandbox:
    """The sandbox of a test.

    `name` is the cell's name; `worker` the worker's; addresses are empty where a backend has none. `deadline` is the
    end of the cell's time, on the monotonic clock. `done` is set then, or at the end of the test: threads of a test
    wait on it. `tools` is the folder with the worker's binaries, `state` the one with its daemons' state. `prefix` is
    the beginning of the names of an extra worker's daemons.
    """

    name: str
    worker: str
    backend: Backend = field(repr=False)
    axes: Mapping[str, AxisValue]
    control: Control = field(repr=False)
    deadline: float = field(default=math.inf, repr=False)
    log_folder: Path = field(default=Path("/out"), repr=False)
    before: Before = field(default_factory=Before, repr=False)
    done: threading.Event = field(default_factory=threading.Event, repr=False)
    tools: Path = field(default=Path("/opt/bk/bin"), repr=False)
    state: Path = field(default=Daemons.state, repr=False)
    prefix: str = field(default="", repr=False)
    _serial: Iterator[int] = field(default_factory=itertools.count, repr=False)
    _begins: dict[str, int] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._begins.update(self.before.logs)

    @property
    def address(self) -> str:
        """The address of buildkitd, for BUILDKIT_HOST."""
        return self.backend.address

    @property
    def snapshotter(self) -> str:
        """The name of the snapshotter."""
        return self.backend.snapshotter

    @property
    def rootless(self) -> bool:
        """Whether buildkitd runs without privileges."""
        return self.backend.rootless

    @property
    def containerd_address(self) -> str:
        """The path of containerd's socket, or an empty text."""
        return self.backend.containerd_address

    @property
    def docker_address(self) -> str:
        """The address of dockerd, or an empty text."""
        return self.backend.docker_address

    @property
    def debug_address(self) -> str:
        """The address at which buildkitd serves stacks and metrics over HTTP, or an empty text."""
        return self.backend.debug_address

    @property
    def netns_detached(self) -> bool:
        """Whether a rootless buildkitd stays in the cell's network while its containers have another."""
        return self.backend.netns_detached

    @property
    def extra_env(self) -> Mapping[str, str]:
        """The variables, besides BUILDKIT_HOST, with which this backend was started and which its commands may need."""
        return self.backend.extra_env

    @property
    def tls(self) -> Tls:
        """The files and the name that a client needs for an address with TLS; all empty without TLS."""
        return self.backend.tls

    @property
    def cdi_spec_dir(self) -> Path:
        """The folder in which buildkitd looks for specifications of CDI devices; empty at first."""
        return Path(self.backend.cdi_spec_dir)

    def supports(self, feature: str) -> bool:
        """Return whether the backend has a feature, by BuildKit's name. Raises UnknownFeature."""
        return self.backend.supports(feature)

    @property
    def mirror(self) -> str:
        """The mirror's address, as `host:port`."""
        return MIRROR_ADDRESS

    def value(self, axis: str) -> Any:
        """Return the value of this cell on an axis. Raises KeyError that names the axes there are."""
        __tracebackhide__ = True
        return self._point(axis).value

    def choice(self, axis: str) -> str:
        """Return the name of this cell's value on an axis."""
        __tracebackhide__ = True
        return str(self._point(axis).choice)

    def _point(self, axis: str) -> AxisValue:
        __tracebackhide__ = True
        if axis not in self.axes:
            raise KeyError(f"no axis {axis!r}; {did_you_mean(axis, self.axes, 'this matrix has')}")
        return self.axes[axis]

    def cmd(self, arguments: str | list[str], *, client: Sandbox | None = None) -> Command:
        """Return a buildctl command with these arguments and this backend as its BUILDKIT_HOST; a string is split as in a shell.

        buildctl is the worker's own, or that of another worker in this cell, `client`.
        """
        words = shlex.split(arguments) if isinstance(arguments, str) else arguments
        environment = {**self.environment, "PATH": (client or self).environment["PATH"]}
        return Command((*self.backend.buildctl, *words), environment, self.log_folder)

    def run(
        self, arguments: str | list[str], *, timeout: float | None = None, client: Sandbox | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run buildctl with these arguments against this backend; a string is split as a shell does.

        buildctl is the worker's own, or that of another worker in this cell, `client`. Raises CommandFailed, with its
        whole output, when its status is not 0, and TimeoutExpired after `timeout` seconds.
        """
        __tracebackhide__ = True
        return self.cmd(arguments, client=client).run(timeout=timeout)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of commands that use this backend; its worker's binaries come first on PATH."""
        path = os.environ.get("PATH", os.defpath)
        if self.prefix:
            path = f"{self.tools}:{path}"
        return {**os.environ, "PATH": path, "BUILDKIT_HOST": self.address, **self.backend.extra_env}

    def start_worker(self, worker: str, *, name: str = "") -> Sandbox:
        """Start a worker of the matrix's `extra_workers` next to this one, and wait until it is ready.

        `worker` is its label or its name in cells; `name` is what its logs begin with, by default the same. A worker may be
        started several times, each time under another name. It lives as long as the cell. Raises ControlFailed when it is
        unknown, or not ready after 20 seconds.
        """
        __tracebackhide__ = True
        started = self.control.start_worker(worker, name)
        backend = dict(started.backend)
        backend["unsupported"] = frozenset(backend["unsupported"])  # type: ignore[call-overload]
        backend["tls"] = Tls(**backend["tls"])  # type: ignore[arg-type]
        return replace(
            self,
            worker=started.worker,
            backend=Backend(**backend),  # type: ignore[arg-type]
            control=replace(self.control, daemons=started.daemons),
            before=Before(),
            tools=Path(started.tools),
            state=Path(started.state),
            prefix=f"{started.name}.",
            _begins={},
        )

    def remaining(self) -> float:
        """Return the remaining seconds of the cell's time, at least 0."""
        return max(0.0, self.deadline - time.monotonic())

    @property
    def daemons(self) -> tuple[str, ...]:
        """The names of this worker's daemons, in the order of their start."""
        return tuple(self.control.daemons)

    def stop(self, daemon: str, *, signal: Signals = Signals.SIGTERM) -> None:
        """Send a daemon the signal and wait for its end. The end does not fail the test, which asked for it.

        Raises ControlFailed when there is no such daemon, and when it has not ended after 20 seconds.
        """
        __tracebackhide__ = True
        self.control.stop(self.prefix + daemon, signal)

    def start(self, daemon: str) -> None:
        """Start a stopped daemon as it was started before, and wait until it is ready. Its log is appended to.

        Raises ControlFailed when the daemon was not stopped, and when it ends or is not ready after 20 seconds.
        """
        __tracebackhide__ = True
        self.control.start(self.prefix + daemon)

    def restart(self, daemon: str, *, signal: Signals = Signals.SIGTERM) -> None:
        """Call `stop` and `start`: clients of the daemon lose their connections. Raises ControlFailed."""
        __tracebackhide__ = True
        self.stop(daemon, signal=signal)
        self.start(daemon)

    @property
    def logs(self) -> dict[str, str]:
        """Return the logs of the daemons so far, by their names; since `clear_logs` when that was called.

        Those of the first worker contain those of the extra workers too, under names such as `oci.buildkitd`.
        """
        return {
            path.stem.removeprefix(self.prefix): path.read_bytes()[self._begins.get(path.name, 0) :].decode(
                errors="replace"
            )
            for path in self._log_files()
        }

    def print_logs(self) -> None:
        """Print the logs of all daemons, each under the name of its daemon."""
        for name, text in self.logs.items():
            print(f"--- {name}\n{text}", end="" if text.endswith("\n") else "\n")

    def clear_logs(self) -> None:
        """Reset `logs`. The kept logs of the cell stay complete."""
        self._begins.update({path.name: path.stat().st_size for path in self._log_files()})

    def _log_files(self) -> list[Path]:
        if self.prefix:
            return [self.log_folder / f"{self.prefix}{daemon}.log" for daemon in sorted(self.daemons)]
        return [path for path in sorted(self.log_folder.glob("*.log")) if path.name not in ("test.log", CELL_LOG)]

    def debug(self, path: str) -> str:
        """Return buildkitd's answer on its debug address as text: `/metrics`, `/debug/pprof/goroutine?debug=2`.

        Raises OSError, and ValueError for an answer that is no text, such as a profile.
        """
        __tracebackhide__ = True
        data = self.debug_bytes(path)
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"the answer to {path} is no text; debug_bytes({path!r}) returns its bytes") from error

    def debug_bytes(self, path: str) -> bytes:
        """Return the bytes of buildkitd's answer on its debug address: `/debug/pprof/heap` for `go tool pprof`. Raises OSError."""
        __tracebackhide__ = True
        return debug.get(self.debug_address, path, _WAIT)

    def check_released(self) -> None:
        """Prune, and fail unless the backend then holds nothing: no record, blob, snapshot, lease or mount."""
        from bkrules.testing.released import check_released

        check_released(self)

    def mirror_requests(self) -> list[MirrorRequest]:
        """Return the requests of this cell's daemons to the mirror so far, in the order of their answers.

        Raises Uncounted, with the reasons, when a request or its answer could not be counted.
        """
        record, uncounted = mirror.record()
        if uncounted:
            raise Uncounted(f"the mirror's count is incomplete: {'; '.join(uncounted)}")
        return record[self.before.requests :]

    def begin_faults(self) -> None:
        """Begin the mirror faults of this cell's axis values; `times` counts from now on.

        Raises MirrorFailed when the axis values define none.
        """
        __tracebackhide__ = True
        mirror.begin_faults()

    def end_faults(self) -> None:
        """End the mirror faults; requests that met them stay failed. Raises MirrorFailed as `begin_faults`."""
        __tracebackhide__ = True
        mirror.end_faults()

    def manifest(self, reference: str) -> dict[str, Any]:
        """Return the mirror's manifest of a reference such as `docker.io/library/busybox:latest`.

        Raises MirrorFailed, which names the mirror's images, when it has none, and ValueError for a reference that is not full.
        """
        __tracebackhide__ = True
        return mirror.manifest(reference)

    def new_registry(self, *, htpasswd: str = "") -> str:
        """Start another registry, empty and writable, that lives as long as this cell. Return its `host:port`.

        With `htpasswd`, lines of a user and a bcrypt hash as of `htpasswd -B`, only these users have access.
        """
        folder = Path(tempfile.mkdtemp(prefix="registry-"))
        log = self.log_folder / f"registry-{next(self._serial)}.log"
        config = folder / "config.yml"
        storage = f"storage: {{filesystem: {{rootdirectory: {folder}/data}}, delete: {{enabled: true}}}}"
        config.write_text(f"version: 0.1\nlog: {{level: info}}\n{storage}\nhttp: {{addr: '127.0.0.1:0'}}\n")
        if htpasswd:
            (folder / "htpasswd").write_text(htpasswd)
            config.write_text(f"{config.read_text()}auth: {{htpasswd: {{realm: bk, path: {folder}/htpasswd}}}}\n")
        with log.open("w") as output:
            process = subprocess.Popen(["registry", "serve", str(config)], stdout=output, stderr=output)
        found = wait_until_ready(process, lambda: re.search(r"listening on (127\.0\.0\.1:\d+)", log.read_text()), log)
        return found[1]
