"""The runner of each mnemonic."""

from __future__ import annotations

from bkrules.execution.build_go import fetch_wheel, go_build
from bkrules.execution.collect_tests import collect_tests
from bkrules.execution.fetch_file import fetch_file
from bkrules.execution.genrule import run_genrule
from bkrules.execution.make_image import convert_to_estargz, make_image
from bkrules.execution.pull_image import import_image, pull_image
from bkrules.execution.runner import Runner
from bkrules.execution.test_cell import run_test_cell

RUNNERS: dict[str, Runner] = {
    "CollectTests": collect_tests,
    "EstargzImage": convert_to_estargz,
    "FetchFile": fetch_file,
    "FetchWheel": fetch_wheel,
    "Genrule": run_genrule,
    "GoBuild": go_build,
    "Image": make_image,
    "ImportImage": import_image,
    "PullImage": pull_image,
    "TestCell": run_test_cell,
}
