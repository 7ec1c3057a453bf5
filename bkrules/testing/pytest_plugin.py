"""The pytest plugin with the `sandbox` fixture."""

from __future__ import annotations

import difflib
import re
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from bkrules.testing.actions_cache import ActionsCache
    from bkrules.testing.s3 import S3Server
    from bkrules.testing.sandbox import Sandbox
    from bkrules.testing.servers import HttpServer

CURRENT: list[Sandbox] = []
MARKS = ("no_rootless", "no_parallel", "extra_timeout", "requires")
"""The marks that decide about cells before anything runs."""


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks, so that pytest does not warn about them."""
    for name in MARKS:
        config.addinivalue_line("markers", f"{name}: see docs/test-cells.md of bk")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the nearest fixture to the error about a missing one."""
    report = yield
    error = getattr(report.longrepr, "errorstring", "")
    found = re.match(r"fixture '(.+)' not found\n *available fixtures: (.*)", error)
    near = found and difflib.get_close_matches(found[1], found[2].split(", "), n=1)
    if near:
        first, rest = error.split("\n", 1)
        report.longrepr.errorstring = f"{first}; did you mean {near[0]!r}?\n{rest}"  # type: ignore[union-attr]
    return report


@pytest.fixture
def http_server() -> Iterator[HttpServer]:
    """An HTTP server in this cell: set its `files`, read its `requests`."""
    from bkrules.testing import servers

    with servers.http_server() as server:
        yield server


@pytest.fixture
def echo_server() -> Iterator[str]:
    """The `host:port` of a TCP server in this cell that echoes its input."""
    from bkrules.testing import servers

    with servers.echo_server() as address:
        yield address


@pytest.fixture
def s3_server(sandbox: Sandbox) -> Iterator[S3Server]:
    """An S3 server in this cell with an empty bucket; the matrix has versitygw in its `tools`."""
    from bkrules.testing import s3

    with s3.s3_server(sandbox.log_folder) as server:
        yield server


@pytest.fixture
def actions_cache(sandbox: Sandbox) -> Iterator[ActionsCache]:
    """The cache service of GitHub Actions in this cell; the matrix has actions-cache in its `tools`."""
    from bkrules.testing import actions_cache

    with actions_cache.actions_cache(sandbox.log_folder) as service:
        yield service


@pytest.fixture
def sandbox() -> Sandbox:
    """The backend, the mirror and the point of the matrix of this cell. Only a test that bk runs has one."""
    if not CURRENT:
        raise pytest.UsageError(
            "the 'sandbox' fixture exists in cells only: list this file in 'tests' of a test_matrix, and run it with "
            "`bk test`, or with pytest's option --bk-worker=WORKER"
        )
    return CURRENT[0]
