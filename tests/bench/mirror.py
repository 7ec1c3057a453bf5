"""Copies of images against crane and skopeo: `.venv/bin/python tests/bench/mirror.py`. docs/performance.md says more."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.shared import machine, positive, say, table
from registries import image, registry, tagged

from bkrules.images.layer import noise
from bkrules.images.storage import Tree, write_tree
from bkrules.model.reference import Reference

REPOSITORY = Path(__file__).resolve().parents[2]
AT_ONCE = 4
KINDS = ("cold", "all there")
_BIG, _LAYERS, _LAYER = 2, 3, 25 << 20
_SMALL, _SMALL_LAYER = 20, 200 << 10


@dataclass(frozen=True)
class Copy:
    """One image: its repository, tag and digest."""

    repository: str
    digest: str

    @property
    def name(self) -> str:
        """Where it is on any registry, without the host."""
        return f"{self.repository}:1"


def main() -> int:
    """Measure and print; the exit code: 0, or 1 when a side failed."""
    parser = argparse.ArgumentParser(description="Compare bk mirror sync with crane and skopeo.")
    parser.add_argument("--rounds", type=positive, default=5, help="how often each is timed")
    rounds = parser.parse_args().rounds
    try:
        with tempfile.TemporaryDirectory(prefix="bk-bench-") as folder:
            _bench(Path(folder), rounds)
    except subprocess.CalledProcessError as error:
        print(f"error: {error}\n{error.stdout or ''}{error.stderr or ''}", file=sys.stderr)
        return 1
    return 0


def _bench(folder: Path, rounds: int) -> None:
    tools = _tools()
    loads = [os.getloadavg()[0]]
    runs = measure(folder, rounds, tools, loads)
    sides = list(dict.fromkeys(name for name, _ in runs))
    print(f"{_BIG + _SMALL} images, {AT_ONCE} at a time; wall seconds, median of {rounds} (least)\n")
    rows = [["", *KINDS]]
    for name in sides:
        found = [runs[name, kind] for kind in KINDS]
        rows.append([name, *(f"{median(one):.3f} ({min(one):.3f})" for one in found)])
    best = [min(median(runs[name, kind]) for name in sides if name != "bk") for kind in KINDS]
    ratios = [median(runs["bk", kind]) / one for kind, one in zip(KINDS, best, strict=True)]
    rows.append(["bk / faster of the others", *(f"{ratio:.2f}" for ratio in ratios)])
    print(table(rows))
    print("\n".join(["", *machine(loads), *(_version(name, tools[name]) for name in sides if name != "bk")]))


def measure(
    folder: Path, rounds: int, tools: Mapping[str, Path], loads: list[float]
) -> dict[tuple[str, str], list[float]]:
    """Return the seconds of each copy, by its side and its kind. The load after each round is added to `loads`.

    The sides take turns, in the other order each time. Raises CalledProcessError when one fails.
    """
    copies = _images(folder / "source")
    sides: dict[str, Callable[[str, Path], None]] = {"bk": lambda source, place: _bk(source, place, copies)}
    for name in ("crane", "skopeo"):
        if name in tools:
            sides[name] = _client(name, tools, copies)
        else:
            say(f"there is no {name} on PATH: its rows are left out")
    runs: dict[tuple[str, str], list[float]] = {(name, kind): [] for name in sides for kind in KINDS}
    with registry(tools["registry"], folder / "source") as source:
        for turn in range(rounds + 1):
            for name in sides if turn % 2 else reversed(sides):
                place = folder / "mirror"
                for kind in KINDS:
                    began = time.monotonic()
                    sides[name](source, place)
                    seconds = time.monotonic() - began
                    _check(place, copies, name)
                    if turn:  # the first round warms up
                        runs[name, kind].append(seconds)
                shutil.rmtree(place)
            loads.append(os.getloadavg()[0])
            say(f"round {turn} of {rounds}")
    return runs


def crane() -> dict[str, Path]:
    """Build crane and the registry. Return their paths by name. Raises CalledProcessError."""
    return {name: path for name, path in _tools().items() if name != "skopeo"}


def _tools() -> dict[str, Path]:
    """The commands to race, and the registry."""
    labels = {"registry": "@bk_tools//:registry", "crane": "//tests/bench:crane"}
    subprocess.run([REPOSITORY / "bk", "build", *labels.values()], cwd=REPOSITORY, check=True, capture_output=True)
    found = {
        "registry": REPOSITORY / "bk-out/@bk_tools/registry/registry",
        "crane": REPOSITORY / "bk-out/tests/bench/crane/crane",
    }
    skopeo = shutil.which("skopeo")
    return {**found, "skopeo": Path(skopeo)} if skopeo else found


def _version(name: str, path: Path) -> str:
    if name == "crane":
        text = (REPOSITORY / "tests/bench/crane/go.mod").read_text()
        return "crane " + next(line.split()[1] for line in text.splitlines() if "go-containerregistry " in line)
    return subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout.strip()


def _images(root: Path) -> list[Copy]:
    """The images to copy: two of three layers of 25 MiB, and twenty small ones that share a layer."""
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        shared = {"shared": noise("shared", _SMALL_LAYER)}
        wanted = [(f"big/{number}", _LAYERS, _LAYER) for number in range(_BIG)]
        wanted += [(f"small/{number}", 4, _SMALL_LAYER) for number in range(_SMALL)]
        for repository, layers, size in wanted:
            files = [{f"data/{repository}/{layer}": noise(f"{repository}/{layer}", size)} for layer in range(layers)]
            parts = [shared, *files] if repository.startswith("small") else files
            base, node = None, None
            for number, part in enumerate(parts):
                place = Path(scratch, repository, str(number))
                node = image(place, part, base=base)
                base = place
            assert node is not None
            reference = Reference("x", repository, "1")
            write_tree(root, {reference: node})
            found.append(Copy(repository, tagged(root, reference)))
    return found


def _bk(source: str, place: Path, copies: Sequence[Copy]) -> None:
    """Write the storage tree that a registry serves."""
    names = [f"{source}/{copy.name}" for copy in copies]
    _run([REPOSITORY / "bk", "mirror", "sync", "--to", place, *names])


def _client(name: str, tools: Mapping[str, Path], copies: Sequence[Copy]) -> Callable[[str, Path], None]:
    """Push to a registry that is started for it, whose start is not timed by much: it takes hundredths of a second."""

    def side(source: str, place: Path) -> None:
        (place / "data").mkdir(parents=True, exist_ok=True)
        with _writable(tools["registry"], place / "data") as target, ThreadPoolExecutor(AT_ONCE) as pool:

            def one(copy: Copy) -> None:
                words = {
                    "crane": ["copy", "--insecure", f"{source}/{copy.name}", f"{target}/{copy.name}"],
                    "skopeo": [
                        *("copy", "--quiet", "--insecure-policy", "--src-tls-verify=false", "--dest-tls-verify=false"),
                        *(f"docker://{source}/{copy.name}", f"docker://{target}/{copy.name}"),
                    ],
                }
                _run([tools[name], *words[name]])

            list(pool.map(one, copies))

    return side


@contextmanager
def _writable(binary: Path, folder: Path) -> Iterator[str]:
    with registry(binary, folder, readonly=False) as address:
        yield address


def _run(command: Sequence[str | Path]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


def _check(place: Path, copies: Sequence[Copy], name: str) -> None:
    """Every image is there with its digest, and every blob of it."""
    tree = Tree(place / "data")
    for copy in copies:
        found = tree.tagged(Reference("x", copy.repository, "1"))
        assert found and found == copy.digest, f"{name}: {copy.name} is {found or 'not there'}"
        for blob in tree.manifest(found).blobs:
            assert tree.has(blob.digest, blob.size), f"{name}: {copy.name} lacks {blob.digest}"


if __name__ == "__main__":
    sys.exit(main())
