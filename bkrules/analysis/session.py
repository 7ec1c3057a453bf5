"""A worker and a mirror without a test: what `bk run` boots."""

from __future__ import annotations

from bkrules.analysis.cell_inputs import Limits, sandbox_inputs
from bkrules.analysis.context import Context
from bkrules.model.action import Action
from bkrules.model.parameters import Session
from bkrules.model.providers import MirrorInfo, WorkerInfo

BOOT_SECONDS = 60


def declare_session(worker: Context, mirror: Context) -> Action:
    """Return the action of a cell with this worker and this mirror. Raises LoadError when one of the targets is something else."""
    info = worker.provider("worker", worker.label, WorkerInfo, "a worker")
    images = mirror.provider("mirror", mirror.label, MirrorInfo, "an image_mirror").images
    parts = sandbox_inputs(worker, info, images, Limits())
    return worker.declare(
        "Session",
        Session(**vars(parts.parameters), worker=info.id, axes={}),
        parts.inputs,
        (),
        environment=parts.environment,
        platform=parts.platform,
        timeout=BOOT_SECONDS,
    )
