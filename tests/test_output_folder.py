"""`bk-out` has every output, and is no part of the user's repository, without a line in a .gitignore of theirs."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace

import pytest
from spaces import Space


@pytest.fixture
def loaded(space: Space) -> Space:
    """A workspace with one target."""
    space.write(
        "WORKSPACE.py", "from bkrules import host_binary, workspace\nworkspace(name = 'w')\nhost_binary(name = 'sh')\n"
    )
    return space


def seen_by_git(space: Space) -> list[str]:
    command = ["git", "status", "--porcelain", "--untracked-files=all"]
    done = subprocess.run(command, cwd=space.root, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_version_control_ignores_it(loaded: Space) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=loaded.root, check=True)

    assert loaded.bk("query", "//...").returncode == 0
    assert (loaded.root / "bk-out").is_dir()
    assert seen_by_git(loaded) == ["?? WORKSPACE.py"]

    loaded.write("bk-out/.gitignore", "!kept\n")
    assert loaded.bk("query", "//...").returncode == 0
    assert (loaded.root / "bk-out/.gitignore").read_text() == "!kept\n", "what the user wrote stays"


def test_a_link_to_another_place(loaded: Space) -> None:
    elsewhere = loaded.root.parent / "elsewhere"
    elsewhere.mkdir()
    (loaded.root / "bk-out").symlink_to(elsewhere)

    for _ in range(2):
        assert loaded.bk("query", "//...").returncode == 0
        assert (elsewhere / ".gitignore").read_text() == "*\n"
        assert loaded.bk("clean").returncode == 0
        assert list(elsewhere.iterdir()) == []


IMAGES = """from bkrules import image

[image(name = "image_%d" % number, noise = {"a": 1 + number}) for number in range(COUNT)]
"""


WITHOUT_THREADS = """
import sys, threading
def start(thread):
    raise RuntimeError("can't start new thread")
threading.Thread.start = start
from bkrules.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize("count", [2, 150])
def test_each_of_many_outputs_is_written_and_each_fault_is_told(space: Space, count: int) -> None:
    for package in ("one", "two"):
        space.write(f"{package}/BUILD.py", IMAGES.replace("COUNT", str(count)))
    assert space.bk("build", "//...").returncode == 0
    names = [f"{package}/image_{number}/layout/index.json" for package in ("one", "two") for number in range(count)]
    made = {name: (space.root / "bk-out" / name).read_bytes() for name in names}
    assert len(set(made.values())) == count

    shutil.rmtree(space.root / "bk-out/two")
    (space.root / "bk-out/two").write_text("in the way")
    done = space.bk("build", "//...")
    assert done.returncode == 36
    assert "bk-out/two" in done.stdout + done.stderr
    assert all((space.root / "bk-out" / name).read_bytes() == made[name] for name in names[:count])

    (space.root / "bk-out/two").unlink()
    shutil.rmtree(space.root / "bk-out/one")
    command = space.command("build", "//...")
    at = command.index("-m")
    command[at : at + 2] = ["-c", WITHOUT_THREADS]
    alone = subprocess.run(command, cwd=space.root, capture_output=True, text=True, check=False)
    assert alone.returncode == 0, alone.stderr
    assert {name: (space.root / "bk-out" / name).read_bytes() for name in names} == made


def test_a_disk_cache_in_the_workspace_has_no_packages(loaded: Space) -> None:
    inside = replace(loaded, cache=loaded.root / "sub/cache")
    inside.write("sub/BUILD.py", "from bkrules import image\nimage(name = 'image')\n")
    inside.write("sub/cache/links/BUILD.py", "no build file")
    assert inside.bk("build", "//...").returncode == 0
    assert loaded.bk("build", "//...").returncode == 1, "for another cache, it is a folder of the workspace"
