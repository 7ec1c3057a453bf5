"""The graph that every tool builds: so many files, each a copy of one input, a hundred to a folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.kinds import Failed

PER_FOLDER = 100
Stamp = tuple[int, int]


@dataclass(frozen=True)
class Graph:
    """A graph of `size` copies in `folder`; in `out`, a path with a place for folder and name, lies what a tool makes of it."""

    folder: Path
    size: int
    out: str = "{folder}/{name}.out"

    def packages(self) -> dict[str, list[str]]:
        """The names of the copies, by folder."""
        found: dict[str, list[str]] = {}
        for number in range(self.size):
            found.setdefault(f"p{number // PER_FOLDER:03}", []).append(f"f{number:05}")
        return found

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Each input and its output, relative to the folder."""
        for folder, names in self.packages().items():
            for name in names:
                yield f"{folder}/{name}.in", self.out.format(folder=folder, name=name)

    def write_inputs(self) -> None:
        """Write the inputs, 64 bytes each and no two the same."""
        for number, (source, _) in enumerate(self.pairs()):
            file = self.folder / source
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{number:063}\n")

    def edit(self, number: int, turn: int) -> str:
        """Give one input other bytes, never the same twice; its output."""
        source, output = list(self.pairs())[number]
        (self.folder / source).write_text(f"edited {turn:056}\n")
        return output

    def stamps(self) -> dict[str, Stamp]:
        """What says of each output that nobody touched it. Raises Failed when one is not there."""
        try:
            found = {output: (self.folder / output).stat() for _, output in self.pairs()}
        except FileNotFoundError as error:
            raise Failed(f"{error.filename} was not made") from error
        return {output: (stat.st_mtime_ns, stat.st_ino) for output, stat in found.items()}

    def check_bytes(self) -> None:
        """Raises Failed unless each output has the bytes of its input."""
        for source, output in self.pairs():
            made = self.folder / output
            if not made.is_file():
                raise Failed(f"{made} was not made")
            if made.read_bytes() != (self.folder / source).read_bytes():
                raise Failed(f"{made} has not the bytes of {source}")

    def check_untouched(self, before: dict[str, Stamp], but: str = "") -> None:
        """Raises Failed when an output was touched since `before`, other than `but`."""
        for output, stamp in self.stamps().items():
            if stamp != before[output] and output != but:
                raise Failed(f"{self.folder / output} was touched, and nothing had changed")
