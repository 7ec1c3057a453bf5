"""The extra workers of a matrix: workers that a test may start next to the one of its cell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from bkrules.analysis.cell_inputs import Limits, SandboxInputs, sandbox_inputs
from bkrules.analysis.context import Context
from bkrules.model.action import Artifact, Output
from bkrules.model.parameters import CellParameters, ExtraWorker
from bkrules.model.providers import WorkerInfo
from bkrules.model.reference import Reference
from bkrules.plugin import ask

ATTRIBUTE = "extra_workers"
FOLDER = "extra"
"""The folder among the inputs of a cell with the files of each extra worker, by its id."""
_OWN = ("tools/", "config/", "plugin/cache_key")
"""The inputs that each worker of a cell has for itself."""


def read_extra_workers(context: Context) -> list[WorkerInfo]:
    """Return the workers in the attribute. Raises LoadError for two of one name."""
    found: dict[str, WorkerInfo] = {}
    for label in context.attribute(ATTRIBUTE):
        worker = context.provider(ATTRIBUTE, label, WorkerInfo, "a worker")
        if worker.id in found:
            what = f"{label} and {found[worker.id].label} are both called {worker.id!r}"
            hint = "give one of them an 'id', or name it once: a test may start a worker several times"
            raise context.error("duplicate-name", what, ATTRIBUTE, hint)
        found[worker.id] = worker
    return list(found.values())


def with_extra_workers(
    context: Context,
    sandbox: SandboxInputs,
    workers: Sequence[WorkerInfo],
    images: Mapping[Reference, Output],
    *,
    jail: bool,
) -> SandboxInputs:
    """Return the inputs of a cell with those of its extra workers.

    Raises WorkerFault, and LoadError for a worker that cannot run in a jail.
    """
    inputs: dict[str, Artifact] = dict(sandbox.inputs)
    extra, ext4 = [], sandbox.parameters.ext4
    for worker in workers:
        if jail and (reason := ask.no_jail(worker.worker)):
            what = f"{worker.id!r} cannot run in a jail: {reason}"
            raise context.error("bad-attribute", what, ATTRIBUTE, "give it a matrix with another isolation")
        parts = sandbox_inputs(context, worker, images, Limits())
        for path, file in parts.inputs.items():
            if path.startswith(_OWN):
                inputs[f"{FOLDER}/{worker.id}/{path}"] = file
            else:
                inputs.setdefault(path, file)
        found = parts.parameters
        ext4 = ext4 or found.ext4
        extra.append(
            ExtraWorker(
                id=worker.id,
                label=str(worker.label),
                plugin=found.plugin,
                settings=found.settings,
                unsupported=found.unsupported,
            )
        )
    parameters = replace(sandbox.parameters, extra_workers=tuple(extra), ext4=ext4)
    return sandbox._replace(inputs=inputs, parameters=parameters)


def workers_of(parameters: CellParameters) -> Iterator[tuple[str, tuple[str, Mapping[str, object]]]]:
    """Yield each worker of a cell by the folder of its inputs, as its plugin's worker and its settings."""
    yield "", (parameters.plugin, parameters.settings)
    for one in parameters.extra_workers:
        yield f"{FOLDER}/{one.id}/", (one.plugin, one.settings)
