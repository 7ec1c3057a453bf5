"""Layers pulled through bk's mirror proxy, and from the registry alone: `.venv/bin/python tests/bench/pull.py`."""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.kinds import Failed
from bench.shared import machine, positive, ran, say, table
from registries import image, registry, tagged

from bkrules.images.layer import noise
from bkrules.images.storage import Tree, write_tree
from bkrules.mirror.proxy import MirrorProxy
from bkrules.model.reference import Reference

REPOSITORY = Path(__file__).resolve().parents[2]
CLIENTS, LAYERS = 4, 4
MIB = 64
"""The size of a layer. So four clients, which pull four layers each, get 1 GiB."""
SIDES = ("bk", "registry alone")
_REPOSITORY = "bench/pull"
_CLIENT = Path(__file__).with_name("pull_client.py")


def main() -> int:
    """Measure and print; the exit code: 0, or 1 when a side failed."""
    parser = argparse.ArgumentParser(description="Compare bk's mirror proxy with the registry alone.")
    parser.add_argument("--rounds", type=positive, default=5, help="how often each is timed")
    rounds = parser.parse_args().rounds

    def bench(folder: Path) -> None:
        loads = [os.getloadavg()[0]]
        runs = measure(folder, rounds, MIB, loads)
        size = CLIENTS * LAYERS * MIB
        rows = [["", "seconds", "MiB/s", f"CPU seconds of {SIDES[0]}"]]
        for side, found in runs.items():
            middle = median(seconds for seconds, _ in found)
            rows.append([side, f"{middle:.3f}", f"{size / middle:.0f}", f"{median(cpu for _, cpu in found):.2f}"])
        print(f"{CLIENTS} clients, {size} MiB; median of {rounds} rounds\n\n{table(rows)}\n")
        print("\n".join(machine(loads)))

    return ran(bench)


def measure(folder: Path, rounds: int, mib: int, loads: list[float]) -> dict[str, list[tuple[float, float]]]:
    """Return wall seconds, and processor seconds of this process, whose thread the proxy is, for layers of so many MiB.

    The sides take turns, in the other order each time, and each byte goes over the loopback. The load after each round is added to
    `loads`. Raises Failed.
    """
    binary = REPOSITORY / "bk-out/@bk_tools/registry/registry"
    done = subprocess.run(
        [REPOSITORY / "bk", "build", "@bk_tools//:registry"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Failed(f"bk build ended with status {done.returncode}:\n{done.stdout}{done.stderr}")
    blobs = _layers(folder / "alone", mib)
    shutil.copytree(folder / "alone", folder / "mirrored", copy_function=os.link)
    runs: dict[str, list[tuple[float, float]]] = {side: [] for side in SIDES}
    with ExitStack() as opened:
        alone = opened.enter_context(registry(binary, folder / "alone"))
        ports = {SIDES[0]: opened.enter_context(_mirrored(binary, folder)), SIDES[1]: int(alone.rpartition(":")[2])}
        for turn in range(rounds + 1):
            for side in SIDES if turn % 2 else reversed(SIDES):
                run = _pull(ports[side], blobs)
                if turn:  # the first round warms up
                    runs[side].append(run)
            loads.append(os.getloadavg()[0])
            say(f"round {turn} of {rounds}")
    return runs


def _layers(root: Path, mib: int) -> list[str]:
    """Write an image to a storage tree. Return what each client asks for: the path and the size of each layer."""
    base, node = None, None
    for number in range(LAYERS):
        place = root.parent / "layouts" / str(number)
        node = image(place, {f"data/{number}": noise(str(number), mib << 20)}, base=base)
        base = place
    assert node is not None
    reference = Reference("x", _REPOSITORY, "1")
    write_tree(root, {reference: node})
    tree = Tree(root)
    layers = tree.manifest(tagged(root, reference)).blobs
    return [f"/v2/{_REPOSITORY}/blobs/{blob.digest}={blob.size}" for blob in layers]


@contextmanager
def _mirrored(binary: Path, folder: Path) -> Iterator[int]:
    """A registry on a unix socket behind bk's proxy, as cells have it. Yields the proxy's port."""
    path = folder / "registry.sock"
    with ExitStack() as opened:
        opened.enter_context(registry(binary, folder / "mirrored", http={"net": "unix", "addr": str(path)}))
        proxy = MirrorProxy()
        opened.callback(proxy.close)
        listener = socket.create_server(("127.0.0.1", 0))
        port = int(listener.getsockname()[1])
        handle = proxy.add(listener.detach(), str(path))
        opened.callback(proxy.remove, handle)
        yield port


def _pull(port: int, blobs: Sequence[str]) -> tuple[float, float]:
    """Have all clients pull all layers at once. Raises Failed when one does not get each byte."""
    command = [sys.executable, "-I", "-S", str(_CLIENT), str(port), *blobs]
    clients = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(CLIENTS)
    ]
    with ExitStack() as opened:
        for client in clients:
            opened.enter_context(client)
        if any(_line(client) != "ready" for client in clients):
            raise Failed("a client did not connect")
        began, used = time.monotonic(), _processor_seconds()
        for client in clients:
            assert client.stdin is not None
            client.stdin.write("\n")
            client.stdin.flush()
        if any(_line(client) != "done" for client in clients):
            raise Failed("a client did not get each byte of its layers")
        return time.monotonic() - began, _processor_seconds() - used


def _line(client: subprocess.Popen[str]) -> str:
    assert client.stdout is not None
    return client.stdout.readline().strip()


def _processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    sys.exit(main())
