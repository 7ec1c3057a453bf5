"""The runner of FetchDeb: files of a Debian package, which apt fetches as this machine's configuration says."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import NamedTuple

from bkrules.analysis.host_inputs import SEARCH_PATH
from bkrules.errors import ActionFailed, MachineLacks, did_you_mean
from bkrules.execution.context import RunContext, network_environment
from bkrules.execution.result import Outcome
from bkrules.images import deb_reader
from bkrules.images.tar_reader import LEAST_LIMIT, MOST, RATIO, TarReader, bad
from bkrules.model import digest
from bkrules.model.action import Action, Node
from bkrules.model.parameters import FetchDeb, parameters_of
from bkrules.model.status import Status
from bkrules.sandbox import outputs

_CONFIGURATION = """\
Dir::Cache "{folder}/cache";
APT::Sandbox::User "root";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"""
"""The last configuration that apt reads, by which it writes to nothing but a folder of bk and runs no command of the machine."""
_HELPER = "/usr/lib/apt/apt-helper"
_UNKNOWN = re.compile("^E: (?:Unable to locate package|No packages found|Can't select versions)", re.MULTILINE)
_GONE = re.compile("^E: Version .* was not found", re.MULTILINE)
_SILENT = re.compile(r"^[EW]: Failed to fetch \w+:/*(?:[^/\s@]*@)?([^/\s]*)", re.MULTILINE)
"""The hosts of sources whose lists apt could not fetch."""


def fetch_deb(action: Action, _inputs: Mapping[str, Node], context: RunContext) -> Outcome:
    """Fetch a package with apt, check its digest, and take files of it.

    Raises ActionFailed, and MachineLacks without apt.
    """
    spec = parameters_of(action, FetchDeb)
    if which("apt-get", path=SEARCH_PATH) is None:
        raise MachineLacks(
            "no-apt",
            f"{action.label}: this machine has no apt-get, which fetches Debian packages",
            hint="build it on Debian or Ubuntu, or with a cache that has it already: --remote_cache, --disk_cache",
        )
    apt = _Apt(spec, context.scratch(action), action, context)
    package = apt.package()
    try:
        with deb_reader.opened(package, apt.folder, apt.unpack) as files:
            made = {path: str(_written(files, path, apt.folder / "out" / path)) for path in action.outputs}
    except ActionFailed as error:
        raise ActionFailed(error.reason, f"{action.label}: {package.name}: {error.message}", hint=error.hint) from error
    return Outcome(Status.PASSED, made)


def _written(files: TarReader, path: str, target: Path) -> Path:
    if not files.has(path):
        raise ActionFailed("no-such-file", f"it has no file {path!r}", hint=did_you_mean(path, files.names, "it has"))
    executable = files.is_executable(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        for piece in files.pieces(path):
            file.write(piece)
    target.chmod(0o755 if executable else 0o644)
    return target


class _Ended(NamedTuple):
    """The end of a command of apt: its exit status, and its output."""

    code: int
    text: str


@dataclass(frozen=True)
class _Apt:
    """apt for one package, in a folder of its action."""

    spec: FetchDeb
    folder: Path
    action: Action
    context: RunContext

    def package(self) -> Path:
        """Return the fetched package. Raises ActionFailed."""
        for name in ("cache/archives/partial", "lists/partial", "deb"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "apt.conf").write_text(_CONFIGURATION.format(folder=self.folder))
        wanted = f"{self.spec.package}={self.spec.version}"
        first = self._run("apt-get", "download", wanted)
        if first.code:
            # The machine may have no lists of packages, or old ones, which bk leaves alone: it fetches others.
            lists = ("-o", f"Dir::State::lists={self.folder}/lists")
            refresh = self._run("apt-get", *lists, "-o", "Acquire::Retries=0", "update")
            second = self._run("apt-get", *lists, "download", wanted)
            if second.code:
                self.context.log(self.action).write_text(first.text + refresh.text + second.text)
                raise self._failure(first.text, refresh.text, second.text, lists)
        packages = list((self.folder / "deb").glob("*.deb"))
        if len(packages) != 1:
            raise ActionFailed("fetch", f"{self.action.label}: apt fetched {len(packages)} packages for {wanted}")
        fetched = digest.of_file(packages[0])
        if fetched.hash != self.spec.sha256:
            raise ActionFailed(
                "wrong-digest",
                f"{self.action.label}: {packages[0].name} has another sha256 than the one pinned",
                hint=f"pinned:  {self.spec.sha256}\nfetched: {fetched.hash}\nif the new bytes are the right ones, pin their digest",
            )
        return packages[0]

    def unpack(self, source: Path, target: Path) -> None:
        """Decompress zstd, which the standard library of Python does not read, with apt. Raises ActionFailed."""
        size = source.stat().st_size
        limit = max(LEAST_LIMIT, min(RATIO * size, MOST))
        code = self._start(["prlimit", f"--fsize={limit}", _HELPER, "cat-file", str(source)], target)
        if target.stat().st_size >= limit:
            raise bad(f"its {size} bytes expand to more than {limit}")
        if code:
            raise bad(f"apt cannot decompress it: exit status {code}")

    def _run(self, command: str, *words: str) -> _Ended:
        """Run a command of apt to its end."""
        log = self.folder / "log"
        log.unlink(missing_ok=True)
        code = self._start([command, "-c", f"{self.folder}/apt.conf", *words], log)
        return _Ended(code, outputs.tail(log))

    def _start(self, command: list[str], log: Path) -> int:
        own = {name: value for name, value in os.environ.items() if name.startswith("APT_")}
        environment = {
            "PATH": SEARCH_PATH,
            "HOME": str(self.folder),
            "LC_ALL": "C.UTF-8",
            **own,
            **network_environment(),
        }
        return self.context.processes.run(command, str(self.folder / "deb"), environment, str(log))

    def _failure(self, first: str, refresh: str, second: str, lists: tuple[str, ...]) -> ActionFailed:
        """Return the error for what apt has printed: with the machine's lists, when it fetched others, and with those."""
        package, version = self.spec.package, self.spec.version
        silent = sorted(set(_SILENT.findall(refresh)))
        sources = "source of apt on this machine" + " that answers" * bool(silent)
        unless = f"\nthese sources did not answer: {', '.join(silent)}" if silent else ""
        for said, options in ((second, lists), (first, ())):
            if _GONE.search(said):
                return ActionFailed(
                    "version-gone",
                    f"{self.action.label}: no {sources} has version {version} of {package!r}",
                    hint=f"it has {', '.join(self._versions(options)) or 'none'}: pin one of them with its sha256, or give apt a "
                    f"source that keeps old versions; a cache that has the pinned one needs no apt{unless}",
                    log=said,
                )
        if _UNKNOWN.search(first) and _UNKNOWN.search(second):
            return ActionFailed(
                "unknown-package",
                f"{self.action.label}: no {sources} has a package {package!r}",
                hint=f"`apt-cache search {package}` finds names; add a source that has it to /etc/apt/sources.list.d{unless}",
                log=second,
            )
        return ActionFailed(
            "fetch",
            f"{self.action.label}: apt cannot fetch {package}={version}",
            hint=f"its output is in {self.context.log(self.action)}{unless}",
            log=first if _UNKNOWN.search(second) else second,
        )

    def _versions(self, options: tuple[str, ...]) -> list[str]:
        """Return the versions of the package that apt knows."""
        lines = self._run("apt-cache", *options, "madison", self.spec.package).text.splitlines()
        return sorted({line.split("|")[1].strip() for line in lines if line.count("|") > 1})
