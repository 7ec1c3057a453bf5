"""Clusters of a test: a BuildGrid with its PostgreSQL, bazel-remote as its CAS and action cache, and machines of `bk worker`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import buildgrid
import schedulers
from bazel_remotes import Server, starter
from buildgrid import BuildGrid, Client
from schedulers import Worker
from spaces import wait_for

SECRET = "the secret of the tests, which has more than 32 bytes"
Begin = Callable[..., Worker]


@dataclass
class Cluster:
    """A scheduler, and the cache that it shares with workers and clients."""

    grid: BuildGrid
    cache: Server
    client: Client


@contextmanager
def cluster(command: Path, bazel_remote: Path, folder: Path, options: Mapping[str, Any]) -> Iterator[Cluster]:
    """A cluster without a worker. `options` are those of `buildgrid.buildgrid`."""
    with ExitStack() as stack:
        cache = stack.enter_context(starter(bazel_remote, folder, "grpc"))()
        database = stack.enter_context(buildgrid.database(command))
        port = cache.ports["grpc"]
        grid = stack.enter_context(buildgrid.buildgrid(command, database, folder, port, **options))
        bearer = buildgrid.token(SECRET) if options.get("secret") else ""
        yield Cluster(grid, cache, Client(grid.url, bearer))


@contextmanager
def starting(folder: Path, found: Cluster) -> Iterator[Begin]:
    """A function that starts a worker of that name, with some options, and returns when it has a session."""
    with ExitStack() as stack:

        def start(name: str, *words: str, ready: str = "session ") -> Worker:
            worker = stack.enter_context(schedulers.worker(folder, words, found.grid.url, found.cache.url, name=name))
            wait_for(lambda: worker.says(ready))
            return worker

        yield start
