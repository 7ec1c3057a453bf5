"""Rates of the remote cache's clients against bazel-remote: `.venv/bin/python tests/bench/remote.py`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))

from bazel_remotes import starter
from bench.kinds import Failed
from bench.shared import disk_cache, machine, positive, ran, say, table
from spaces import Space

from bkrules.cache.breaker import Warn
from bkrules.cache.grpc_store import GrpcStore
from bkrules.cache.http_store import HttpStore
from bkrules.cache.remote_options import RemoteOptions
from bkrules.model import digest
from bkrules.model.digest import Digest

REPOSITORY = Path(__file__).resolve().parents[2]
SERVER = "//targets/tools/bazel-remote:bazel-remote"
SIZE = 2 << 10
LARGE = 64 << 20
Store = HttpStore | GrpcStore
STORES: dict[str, Callable[[RemoteOptions, Warn], Store]] = {"http": HttpStore, "grpc": GrpcStore}


def receive(name: Digest, chunks: Iterator[bytes]) -> None:
    """Compare a blob with its digest, and drop it."""
    for _ in digest.checked(name, chunks):
        pass


def timed(call: Callable[[Sequence[Digest]], object], names: Sequence[Digest], threads: int) -> float:
    """The seconds that threads need for all blobs, each for its own share."""
    began = time.monotonic()
    workers = [threading.Thread(target=call, args=(names[start::threads],)) for start in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return time.monotonic() - began


def blobs(folder: Path, count: int, size: int) -> dict[Digest, str]:
    """New blobs, in files."""
    made = {}
    for number in range(count):
        path = folder / str(number)
        path.write_bytes(os.urandom(size))
        made[digest.of_file(path)] = str(path)
    return made


def rates(store: Store, paths: dict[Digest, str], threads: int, *, batches: bool) -> list[float]:
    """Blobs put and got in a second, a request for each or in the client's own batches. Raises Failed for a fault."""
    failed: list[Digest] = []

    def groups(names: Sequence[Digest]) -> list[list[Digest]]:
        return store.groups(names) if batches else [[name] for name in names]

    def put(names: Sequence[Digest]) -> None:
        for group in groups(names):
            failed.extend(set(group) - store.put_blobs({name: paths[name] for name in group}))

    def get(names: Sequence[Digest]) -> None:
        for group in groups(names):
            failed.extend(set(group) - store.blobs(group, receive))

    seconds = [timed(call, list(paths), threads) for call in (put, get)]
    if failed:
        raise Failed(f"{len(failed)} blobs were refused")
    return [len(paths) / one for one in seconds]


def bench(folder: Path, rounds: int, count: int) -> None:
    """Print a table. Raises Failed."""
    done = Space(REPOSITORY, disk_cache()).bk("build", SERVER)
    if done.returncode:
        raise Failed(done.stdout + done.stderr)
    binary = REPOSITORY / "bk-out/targets/tools/bazel-remote/bazel-remote/bazel-remote"
    rows = [["protocol", "blobs", "put", "get, compared with the digest"]]
    loads = [os.getloadavg()[0]]
    with starter(binary, folder, "http") as start:
        server = start()
        for protocol, kind in STORES.items():
            for what, unit, size, number, threads, batches in (
                ("2 KiB, 1 at once", "/s", SIZE, count, 1, False),
                ("2 KiB, 8 at once", "/s", SIZE, count, 8, False),
                ("2 KiB, batches", "/s", SIZE, count, 1, True),
                ("64 MiB, 1 at once", "MiB/s", LARGE, 4, 1, False),
            ):
                if batches and protocol == "http":
                    continue  # which has none
                say(f"{protocol}: {what}")
                found = []
                for _ in range(rounds):
                    store = kind(RemoteOptions(server.address(protocol)), fail)
                    with tempfile.TemporaryDirectory(dir=folder) as place:
                        found.append(rates(store, blobs(Path(place), number, size), threads, batches=batches))
                    loads.append(os.getloadavg()[0])
                factor = size >> 20 or 1
                rates_of_sides = [f"{median(side) * factor:.0f} {unit}" for side in zip(*found, strict=True)]
                rows.append([protocol, what, *rates_of_sides])
    print(table(rows))
    print("\n".join(["", *machine(loads)]))


def fail(warning: str) -> None:
    """Raises Failed."""
    raise Failed(warning)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=positive, default=3, metavar="N", help="rounds; the table has their medians")
    parser.add_argument("--blobs", type=positive, default=1000, metavar="N", help="blobs of 2 KiB in a round")
    arguments = parser.parse_args()
    sys.exit(ran(lambda folder: bench(folder, arguments.rounds, arguments.blobs)))
