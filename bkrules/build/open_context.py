"""Open and close what runners share: the run's folder, the zygote, the registries, the mirror proxy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from bkrules.analysis.host_inputs import Machine
from bkrules.cache.cas import Cas
from bkrules.cache.links import LinkFolders
from bkrules.execution.context import ForCells, RunContext
from bkrules.plugin.installed import Plugins
from bkrules.runners.table import runners_of
from bkrules.sandbox import command_groups
from bkrules.sandbox.run_folder import RunFolder, sweep
from bkrules.sandbox.spawner import Processes


class Prepared(NamedTuple):
    """The folder and the processes of a run that has used neither."""

    folder: RunFolder
    processes: Processes

    def close(self) -> None:
        """End the processes, and remove the folder."""
        self.processes.close()
        self.folder.close()


def prepare(cache: str) -> Prepared:
    """Remove leftovers of killed runs from the disk cache `cache`, and make the folder of a run. Nothing is started yet.

    Raises OSError.
    """
    sweep(cache)
    folder = RunFolder(cache)
    return Prepared(folder, Processes(command_groups.maker(folder)))


def open_context(
    cache: str,
    cas: Cas,
    out: Path,
    machine: Callable[[], Machine],
    plugins: Plugins,
    jobs: int,
    *,
    test_timeouts: Mapping[str, int],
    test_attempts: int | None,
    prepared: Prepared | None = None,
) -> RunContext:
    """Make what this run needs, from what is `prepared`, if anything is. Nothing is started."""
    folder, processes = prepared or prepare(cache)
    links = LinkFolders(cache)
    return RunContext(
        cache=Path(cache),
        out=out,
        cas=cas,
        folder=folder,
        processes=processes,
        make_for_cells=lambda: _for_cells(processes, folder, links),
        machine=machine,
        plugins=plugins,
        jobs=jobs,
        runners=runners_of(plugins),
        links=links,
        test_timeouts=test_timeouts,
        test_attempts=test_attempts,
    )


def _for_cells(processes: Processes, folder: RunFolder, links: LinkFolders) -> ForCells:
    from bkrules.mirror.proxy import MirrorProxy
    from bkrules.mirror.registry import Registries
    from bkrules.runners.cell_pool import SharedCells

    return ForCells(Registries(processes, folder, links), MirrorProxy(), SharedCells())


def close_context(context: RunContext) -> None:
    """End all processes that runners have started, and remove the run's folder."""
    cells = context.of_cells
    if cells is not None:
        cells.shared.close()
        cells.registries.close()
    context.processes.close()
    if cells is not None:
        cells.mirror.close()
    context.links.close()
    context.folder.close()
