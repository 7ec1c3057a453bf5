"""bk's plugin of pytest, as every pytest loads it: the options, and the fixtures of tests in cells.

It imports nothing else of bk unless a worker is named.
"""

from __future__ import annotations

import pytest

WORKERS = "bk_workers"
pytest_plugins = ["bkrules.testing.pytest_plugin"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option and the setting that name workers."""
    group = parser.getgroup("bk", "cells of bk")
    group.addoption(
        "--bk-worker",
        action="append",
        default=[],
        metavar="NAMES",
        help="run the tests of a test_matrix in its cells, on these workers, oci,rootless, or on 'all'",
    )
    parser.addini(WORKERS, "workers of bk, for runs without --bk-worker, as those of editors", type="args", default=[])


def pytest_configure(config: pytest.Config) -> None:
    """Take over the tests of matrices when workers are named."""
    words: list[str] = config.getoption("--bk-worker")
    names = [name for word in words or config.getini(WORKERS) for name in word.split(",") if name]
    if names:
        from bkrules.in_pytest.plugin import CellsPlugin

        config.pluginmanager.register(CellsPlugin(config, names, is_asked=bool(words)), "bk-cells")
    elif words:
        raise pytest.UsageError("--bk-worker needs the name of a worker, such as oci, or 'all'")
