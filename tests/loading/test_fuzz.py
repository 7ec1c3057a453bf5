"""Random build files end: with targets, or with an error that says where. A process that serves many has little memory.

`BK_ROUNDS=30 pytest tests/loading/test_fuzz.py` tries 6,000. A failure names the seed, and `BK_SEED` begins with it.
"""

from __future__ import annotations

import os
import secrets
import selectors
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from loading.random_files import Writer, mutated
from rounds import rounds

ROOT = Path(__file__).parents[2]
REAL = [*ROOT.glob("targets/**/BUILD.py"), *ROOT.glob("tests/**/BUILD.py"), ROOT / "WORKSPACE.py"]
LIMIT = 60
"""Seconds that one file may take on a machine that does much else; the steps allow less than one."""
SERVER = """
import gc, resource, struct, sys
sys.path.insert(0, sys.argv[1])
from bkrules.errors import LoadError
from bkrules.loading import meter
from bkrules.loading.loader import Loader
from bkrules.loading.package import Package
from bkrules.loading.sources import Sources
from bkrules.model.rule import Attr, Rule
from bkrules.rules import RULES

meter.STEPS = 200_000
memory = 700 << 20
resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
thing = Rule("thing", "", {"words": Attr("strings", "", default=()), "table": Attr("dict", "", default={})}, lambda _: ())
rules = {**RULES, "thing": thing}
stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
while head := stdin.read(4):
    text = stdin.read(struct.unpack("<I", head)[0])
    try:
        package = Loader(rules, Sources(None)).package(text, Package("p", "p/BUILD.py"), top=True)
        for target in package.targets.values():
            repr((target.attributes, target.extra)).encode()
        answer = b"ok"
    except LoadError as error:
        str(error).encode()
        assert error.where.startswith("p/BUILD.py:") and len(str(error)) < 20_000, error
        answer = error.reason.encode()
    stdout.write(struct.pack("<I", len(answer)) + answer)
    stdout.flush()
    gc.collect()
"""


class Server:
    """A process that loads one file after the other, and may have little memory."""

    def __init__(self) -> None:
        program = [sys.executable, "-c", SERVER, str(ROOT)]
        # A pipe that nobody reads would be full one day.
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it
        self.process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors)

    def load(self, text: bytes) -> str:
        """What loading a file came to: `ok`, or the reason of its error. Raises AssertionError for a crash or a hang."""
        sent, answers = self.process.stdin, self.process.stdout
        assert sent is not None and answers is not None
        sent.write(struct.pack("<I", len(text)) + text)
        sent.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(answers, selectors.EVENT_READ)
            if not selector.select(LIMIT):
                raise AssertionError(f"no answer in {LIMIT} seconds")
        size = answers.read(4)
        if len(size) < 4:
            self.process.wait()
            self.errors.seek(0)
            raise AssertionError(self.errors.read().decode()[-3000:])
        return answers.read(*struct.unpack("<I", size)).decode()

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()
        self.errors.close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def _file(seed: str) -> bytes:
    random = Random(seed)
    kind = random.randrange(6)
    if kind < 4:
        return Writer(random).program().encode(errors="surrogatepass")
    if kind == 4:
        return mutated(random.choice(REAL).read_bytes(), random)
    return mutated(Writer(random).program().encode(errors="surrogatepass"), random)


def test_random_build_files_end(server: Server) -> None:
    first = os.environ.get("BK_SEED") or secrets.token_hex(4)
    met: dict[str, int] = {}
    for number in range(rounds(200)):
        seed = first if not number and "BK_SEED" in os.environ else f"{first}-{number}"
        text = _file(seed)
        try:
            reason = server.load(text)
        except AssertionError as error:
            raise AssertionError(f"BK_SEED={seed}: {error}\n{text.decode(errors='replace')[:3000]}") from error
        met[reason] = met.get(reason, 0) + 1
    print(met)
    assert met["ok"] and met["evaluation"] and met["syntax-error"]  # it is neither all right nor all wrong
