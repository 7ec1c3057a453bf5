"""The runner of each mnemonic."""

from __future__ import annotations

from bkrules.execution.context import Runner
from bkrules.runners.collect_tests import collect_tests
from bkrules.runners.fetch_file import fetch_file
from bkrules.runners.genrule import run_genrule
from bkrules.runners.go import fetch_wheel, go_build
from bkrules.runners.image import convert_to_estargz, make_image
from bkrules.runners.pull_image import import_image, pull_image
from bkrules.runners.test_cell import run_test_cell

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
