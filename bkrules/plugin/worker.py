"""The interface of workers: the class that a plugin registers, and the backend that it starts."""

from __future__ import annotations

import dataclasses
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar, Self

from bkrules.errors import did_you_mean
from bkrules.plugin.daemon import Daemons
from bkrules.plugin.features import FEATURES, known
from bkrules.plugin.host import Host, Lack

MIRROR_PORT = 5000
MIRROR_ADDRESS = f"127.0.0.1:{MIRROR_PORT}"
"""The mirror's port in every cell."""


@dataclass(frozen=True)
class Mirror:
    """The address of a cell's mirror, and the registries for which it stands in."""

    address: str
    hosts: tuple[str, ...]


@dataclass(frozen=True)
class Tls:
    """The TLS settings of a client of buildkitd: PEM files of the cell, and the name in the daemon's certificate.

    An empty string leaves the choice to the client. Raises ValueError for a certificate without its key, and the
    reverse.
    """

    cacert: str = ""
    cert: str = ""
    key: str = ""
    servername: str = ""

    def __post_init__(self) -> None:
        if bool(self.cert) != bool(self.key):
            raise ValueError("TLS needs 'cert' and 'key' together, or neither")

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags of buildctl with these settings."""
        return tuple(f"--tls{name}={value}" for name, value in dataclasses.asdict(self).items() if value)


@dataclass(frozen=True)
class Backend:
    """A running buildkitd. An empty string means that the backend does not have it.

    `debug_address` is where buildkitd serves its stacks and metrics, `extra_env` are variables, besides BUILDKIT_HOST,
    for commands that use it, `cdi_spec_dir` is the folder in which it looks for CDI devices, `tls` are the settings for
    an address with TLS. bk itself sets `unsupported`.
    """

    address: str
    snapshotter: str
    rootless: bool = False
    containerd_address: str = ""
    docker_address: str = ""
    debug_address: str = ""
    netns_detached: bool = False
    extra_env: Mapping[str, str] = dataclasses.field(default_factory=dict)
    cdi_spec_dir: str = ""
    unsupported: frozenset[str] = frozenset()
    tls: Tls = Tls()

    @property
    def buildctl(self) -> tuple[str, ...]:
        """The first words of a command line of buildctl for this backend, which also needs BUILDKIT_HOST."""
        return ("buildctl", *self.tls.flags)

    def supports(self, feature: str) -> bool:
        """Return whether this backend has a feature, by BuildKit's name. Raises UnknownFeature."""
        return not known({feature}) & self.unsupported


class SettingsError(ValueError):
    """An unknown setting of a worker, or an invalid value."""

    def __init__(self, name: str, message: str, hint: str = "", *, unknown: bool = False) -> None:
        super().__init__(message)
        self.name, self.hint, self.unknown = name, hint, unknown


def one_of(name: str, value: str, known: Sequence[str]) -> None:
    """Raise SettingsError unless the setting `name` has one of the known values."""
    if value not in known:
        raise SettingsError(name, f"{name!r} must be one of {', '.join(known)}, but was {value!r}")


def setting(default: Any, help: str) -> Any:  # noqa: A002 - the word that argparse and dataclasses users look for
    """Return a field of a worker that a BUILD.py may set; `bk workers` shows `help`."""
    return dataclasses.field(default=default, metadata={"help": help})


class Worker(ABC):
    """A way to run buildkitd. Subclasses are frozen dataclasses whose fields are their settings.

    All methods but `start` are called in bk's own process, before anything runs, and must not start anything.
    """

    name: ClassVar[str]
    """The name by which a BUILD.py chooses this worker."""

    rootless: ClassVar[bool] = False
    """Whether its backend runs without privileges; tests marked `no_rootless` are skipped on it, before anything starts."""

    wants_ext4: ClassVar[bool] = False
    """Whether the root of its cells is an ext4 in memory, on machines that can make one; otherwise it is a tmpfs."""

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """Return the worker with these settings. Raises SettingsError."""
        assert dataclasses.is_dataclass(cls), f"{cls.__name__} must be a dataclass"
        fields = {field.name: field for field in dataclasses.fields(cls)}
        for name, value in settings.items():
            if name not in fields:
                hint = did_you_mean(name, fields, f"settings of {cls.name}")
                raise SettingsError(name, f"the worker {cls.name!r} has no setting {name!r}", hint, unknown=True)
            kind = type(fields[name].default)
            if type(value) is not kind:
                raise SettingsError(name, f"{name!r} must be {kind.__name__}, but was {value!r}")
        worker = cls(**settings)
        worker.check()
        return worker

    @classmethod
    def describe_settings(cls) -> dict[str, dict[str, Any]]:
        """Return the default and the help of each setting, by its name."""
        assert dataclasses.is_dataclass(cls), f"{cls.__name__} must be a dataclass"
        fields = dataclasses.fields(cls)
        return {one.name: {"default": one.default, "help": one.metadata.get("help", "")} for one in fields}

    def settings(self) -> dict[str, Any]:
        """Return the settings by name, defaults included."""
        assert dataclasses.is_dataclass(self)
        return dataclasses.asdict(self)

    def check(self) -> None:  # noqa: B027 - most workers have nothing to check
        """Raise SettingsError when the settings do not fit together."""

    def id(self) -> str:
        """Return the worker's name in cells. It must differ between settings that may occur in one matrix."""
        return self.name

    @abstractmethod
    def tools(self) -> tuple[str, ...]:
        """Return the names of the binaries that `start` runs, besides buildctl and registry, which every cell has."""

    def host_tools(self) -> tuple[str, ...]:
        """Return commands of this machine that cannot be pinned, such as setuid helpers. The key has their digests."""
        return ()

    def preflight(self, host: Host) -> tuple[Lack, ...]:
        """Return the lacks of this machine for this worker. A lack makes its cells skipped, with that reason."""
        return ()

    def no_jail(self) -> str:
        """Return why its daemons cannot run in a cell with `isolation = "jail"`, in a user namespace; empty when they can.

        By default they cannot: a plugin that has been tested in a jail returns an empty text.
        """
        return "its plugin does not declare that it can"

    def features(self) -> frozenset[str]:
        """Return the features of its BuildKit, some of `bkrules.plugin.FEATURES`. Tests that require another feature
        are skipped.

        A test that needs CNI networks is skipped by default: `networks.tools` are what a worker needs for them.
        """
        return FEATURES - {"cni_network"}

    def cache_key(self) -> Mapping[str, str]:
        """Return further values of this worker that can change a result. Keys cover its settings, tools, configuration
        and code anyway.
        """
        return {}

    def modules(self) -> tuple[ModuleType, ...]:
        """Return the modules that `start` runs, which become part of the key. This worker's own must be among them.

        Their imports by statements or literal names are found automatically, and of a package all files count.
        """
        return (sys.modules[type(self).__module__],)

    @abstractmethod
    def configuration(self, mirror: Mirror) -> Mapping[str, Mapping[str, Any]]:
        """Return the daemons' configuration files: name to TOML document. They are in `Daemons.configuration` when it starts."""

    @abstractmethod
    def start(self, daemons: Daemons) -> AbstractContextManager[Backend]:
        """Start the daemons inside a cell and yield the backend once it is ready.

        Called once for each cell, in the cell's first process, which is single-threaded. Raising ends the cell as an
        infrastructure failure. Nothing has to be stopped: the kernel ends every process of a cell with its first one.
        """
