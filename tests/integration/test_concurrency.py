"""Many runs of bk on one disk cache: what one does the others take, and no end of any of them spoils it."""

from __future__ import annotations

import random
import re
import subprocess
import time

from rounds import rounds
from spaces import Space

RUNS = 20
KILLS = rounds(10)
HEAD = """from bkrules import genrule, host_binary, workspace
workspace(name = "test")
host_binary(name = "sh")
host_binary(name = "cat")
host_binary(name = "sleep")
"""


def layers(count: int, script: str) -> str:
    """A graph of genrules, of which each reads the two before it."""
    text = HEAD
    for number in range(count):
        before = [f":r{other}" for other in range(max(0, number - 2), number)]
        text += (
            f'genrule(name = "r{number}", srcs = {before}, outs = ["out{number}"], tools = [":sh", ":cat", ":sleep"], '
            f'cmd = ["$(location :sh)", "-c", {script!r}])\n'
        )
    return text


def test_each_action_runs_once_however_many_ask_for_it(space: Space) -> None:
    space.write("WORKSPACE.py", layers(8, "sleep 0.1; cat $(SRCS) /dev/null > $@; echo x >> $@"))

    runs = [
        subprocess.Popen(space.command("build", "-j", "2", "//:all"), cwd=space.root, stdout=subprocess.PIPE, text=True)
        for _ in range(RUNS)
    ]
    said = [run.communicate(timeout=600)[0] for run in runs]

    assert [run.returncode for run in runs] == [0] * RUNS, said
    ran = [int(found[1]) for text in said if (found := re.search(r"8 actions: (\d+) ran", text))]
    assert (len(ran), sum(ran)) == (RUNS, 8)


def test_no_kill_spoils_the_cache(space: Space) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for number in range(KILLS):
        space.write("WORKSPACE.py", layers(20, f"cat $(SRCS) /dev/null > $@; echo {number} >> $@"))
        run = subprocess.Popen(
            space.command("build", "-j", "4", "//:all"),
            cwd=space.root,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(chance.uniform(0.1, 0.9))
        run.kill()
        run.wait()
        checked = space.bk("cache", "verify", "--disk_cache", str(space.cache))
        assert checked.returncode == 0, f"kill {number}: {checked.stdout}"

    assert space.bk("build", "//:all").returncode == 0
    assert space.bk("reap").returncode == 0
    assert list((space.cache / "run").iterdir()) == []
