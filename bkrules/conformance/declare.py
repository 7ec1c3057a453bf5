"""The cells of `bk plugin check`: the tests of `cells.py` on some workers, with a fresh sandbox each and on a shared one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bkrules.analysis.cell_inputs import Limits, sandbox_inputs
from bkrules.analysis.context import Context
from bkrules.analysis.test_files import Module
from bkrules.analysis.test_marks import read_tests
from bkrules.model.action import Cell
from bkrules.model.label import Label
from bkrules.model.parameters import AxisValue, TestCell
from bkrules.model.providers import MatrixInfo, MirrorInfo, WorkerInfo
from bkrules.model.rule import Attr, Location, Rule, Target
from bkrules.plugin import ask
from bkrules.rules.cells import ISOLATION, JAIL, OUTPUTS

TIMEOUT = 120
STAGED = "conformance/test_worker.py"


def _analyze(context: Context) -> tuple[object, ...]:
    text = Path(__file__).with_name("cells.py").read_text()
    module = Module(STAGED, text, read_tests(text))
    mirror = context.provider("mirror", context.attribute("mirror"), MirrorInfo, "an image_mirror")
    image = context.attribute("image")
    for label in context.attribute("workers"):
        worker = context.provider("workers", label, WorkerInfo, "a worker")
        sandbox = sandbox_inputs(context, worker, mirror.images, Limits())
        for test in module.tests:
            own = module.staged(test)
            for isolation in ISOLATION:
                if isolation == JAIL and ask.no_jail(worker.worker):
                    continue
                axes = {"isolation": isolation, "image": image}
                parameters = TestCell(
                    **vars(sandbox.parameters),
                    isolation=isolation,
                    axes={axis: AxisValue(value, value) for axis, value in axes.items()},
                    worker=worker.id,
                    module=module.path,
                    test=test.in_pytest,
                    pytest=module.settings.parameters,
                )
                context.declare(
                    "TestCell",
                    parameters,
                    {**sandbox.inputs, **own},
                    OUTPUTS,
                    environment=sandbox.environment,
                    platform=sandbox.platform,
                    timeout=TIMEOUT,
                    cell=Cell(
                        *(context.label, test.name, worker.id),
                        (("isolation", isolation),),
                        jail=isolation == JAIL,
                    ),
                )
    return (MatrixInfo(tuple(action.id for action in context.actions)),)


_RULE = Rule(
    "worker_conformance",
    "The requirements on every worker. No build file can use this rule.",
    {
        "workers": Attr("labels", "The workers.", required=True),
        "mirror": Attr("label", "The image_mirror that answers in every cell.", required=True),
        "image": Attr("string", "The image to build from; it has a shell.", required=True),
    },
    _analyze,
)


def conformance(workers: Sequence[Label], mirror: Label, image: str) -> Target:
    """Return the target whose cells check whether these workers meet the requirements."""
    name = "plugin_check"
    attributes = {"name": name, "tags": (), "workers": tuple(workers), "mirror": mirror, "image": image}
    return Target(Label("", name), _RULE, attributes, {}, Location("bk plugin check", 1))
