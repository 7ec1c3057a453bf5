"""The cgroups of the processes that run sandboxed commands: one for each process, with the limits of its commands."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress

from bkrules.model.resources import Limits
from bkrules.plugin.host import probe
from bkrules.sandbox.cgroups import Cgroups
from bkrules.sandbox.run_folder import RunFolder


class Group:
    """The cgroups of one such process, in the ledger of the run until they are removed."""

    def __init__(self, groups: Cgroups, open_: ExitStack) -> None:
        self._groups, self._open = groups, open_
        self._hits = groups.hits()

    @property
    def path(self) -> str:
        """The cgroup2 folder."""
        return self._groups.path

    @property
    def limited(self) -> dict[str, str]:
        """The folder of each limit."""
        return self._groups.limited

    def met(self) -> str:
        """Return the limit, `memory` or `pids`, that was met since the last call; usually empty."""
        hits = self._groups.hits()
        new = [name for name, count in hits.items() if count > self._hits.get(name, 0)]
        self._hits = hits
        return new[0] if new else ""

    def remove(self) -> None:
        """Remove the groups. A busy one stays in the ledger, and the next run removes it."""
        with suppress(OSError):
            self._groups.remove()
            self._open.close()


def maker(folder: RunFolder) -> Callable[[Limits], Group | None]:
    """Return a function that makes such groups for one run; None on a machine where cgroup2 is missing or cannot be used."""
    host = probe()

    def make(limits: Limits) -> Group | None:
        if not host.cgroup:
            return None
        name = folder.new_name()
        groups = Cgroups(f"{host.cgroup}/{name}", {one: f"{above}/{name}" for one, above in host.controllers.items()})
        with ExitStack() as stack:
            stack.enter_context(folder.owned(name, groups.folders))
            try:
                groups.create({"memory": limits.memory << 20, "pids": limits.pids})
            except OSError:
                with suppress(OSError):
                    groups.remove()
                return None
            return Group(groups, stack.pop_all())

    return make
