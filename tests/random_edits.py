"""Random edits of a workspace and of what it rests on; after each, bk's answer is compared with one from nothing.

`unshare -m python tests/random_edits.py FOLDER --seed=1 --rounds=20` says each round, and ends with 1 when an answer was wrong. It
mounts in its own namespace alone. `--without=RULE` breaks one of the rules on purpose, `--only=KIND,...` makes no other edits.

Builds are forks of this process in which bk's own `main` runs, with a clock that is an hour ahead, so that what has just been
written is old enough to be believed. The commands of genrules are played by a function that joins what the rule would be given.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import io
import json
import os
import random
import re
import shutil
import stat
import sys
import tarfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bkrules import __main__ as entry
from bkrules.build import analysis
from bkrules.cache import cas
from bkrules.cache.file_digests import FileDigests
from bkrules.commands import build as build_command
from bkrules.execution import executor
from bkrules.execution.context import RunContext, Runner
from bkrules.execution.result import Outcome
from bkrules.incremental import dependencies, null_build, stamps, up_to_date
from bkrules.incremental.dependencies import Dependencies
from bkrules.model import digest
from bkrules.model.action import Action, Node
from bkrules.model.status import Status
from bkrules.report import artifacts
from bkrules.runners import table

HOUR = 3600 * 10**9
MS_BIND, MNT_DETACH = 4096, 2
LIBC = ctypes.CDLL(None, use_errno=True)
GOOD_PLUGIN = """WORDS = 'good'
from dataclasses import dataclass
from bkrules.plugin import Worker, hookimpl
@dataclass(frozen=True)
class Edited(Worker):
    name = "edited"
    def tools(self): return ()
    def configuration(self, mirror): return {}
    def start(self, daemons): raise NotImplementedError("no cell of it runs")
@hookimpl
def bk_register_workers(register): register(Edited)
"""
"""A plugin with a worker that a target names, so that a build fails when it is broken."""
CONTENT: dict[str, Callable[[int], str]] = {
    "ws/a/one.txt": "value {}\n".format,
    "ws/a/run.sh": "echo {}\n".format,
    "ws/b/x.txt": "value {}\n".format,
    "ws/b/sub/y.txt": "value {}\n".format,
    "ws/b/sub/z.txt": "value {}\n".format,
    "ws/m/words.py": 'WORDS = ["w{}"]\n'.format,
    "ws/n/BUILD.py": ('from bkrules import image\nimage(name = "image", noise = {{"n": {}}})\n').format,
    "ws/d/v1/data.txt": "value {}\n".format,
    "ws/d/v2/data.txt": "value {}\n".format,
    "outside/one/far.txt": "value {}\n".format,
    "outside/two/far.txt": "value {}\n".format,
    "venv/lib/pkg/tool": "#!/bin/tool {}\n".format,
    "venv/lib/pkg/other": "#!/bin/tool {}\n".format,
}
"""The files that are edited, below the folder of everything; all texts of one have the same size."""
FIXED = {
    "ws/WORKSPACE.py": (
        "from bkrules import genrule, host_binary, workspace\nworkspace(name = 'test')\nhost_binary(name = 'tool')\n"
        "host_binary(name = 'buildctl', binary = 'tool')\nhost_binary(name = 'registry', binary = 'tool')\n"
        "genrule(name = 'made', srcs = ['//a:one.txt'], outs = ['out'], tools = [':tool'],"
        " cmd = ['$(location :tool)', '$<', '$@'])\n"
    ),
    "ws/a/BUILD.py": 'from bkrules import image\nimage(name="image", files={"one": "one.txt", "run": "run.sh"})\n',
    "ws/b/BUILD.py": (
        'from bkrules import glob, image, load\nload("//m:words.py", "WORDS")\n'
        'image(name = "image", files = {name: name for name in glob(["**/*.txt"])}, cmd = WORDS)\n'
    ),
    "ws/m/BUILD.py": "",
    "ws/w/BUILD.py": 'from bkrules import worker\nworker(name = "edited", plugin = "edited")\n',
    "ws/c/BUILD.py": (
        'from bkrules import image\nimage(name = "image", base = "//a:image", '
        'files = {"link": "link.txt", "far": "far/far.txt", "one": "//a:one.txt"})\n'
    ),
    "venv/site/edited_plugin.py": GOOD_PLUGIN,
    "venv/site/edited-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: edited\nVersion: 1.0\n",
    "venv/site/edited-1.0.dist-info/entry_points.txt": "[bk]\nedited = edited_plugin\n",
    "home/empty": "",
}
LINKS = {
    "ws/c/link.txt": "../d/v1/data.txt",
    "ws/c/far": "../../outside/one",
    "venv/bin/tool": "../lib/pkg/tool",
}


@dataclass(frozen=True)
class Answer:
    """What a build said: the exit code, its words, and what it shows in bk-out, with modes."""

    code: int
    text: str
    shown: Mapping[str, tuple[int, bytes]]

    @property
    def actions(self) -> str:
        """How many actions there were."""
        found = re.search(r"^(\d+) actions?: ", self.text, re.MULTILINE)
        return found[1] if found else ""


Edit = Callable[["World", random.Random], object]


class World:
    """A workspace `ws`, folders `outside` it, and an environment `venv`, all in the folder `base`."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.focus = ""
        """The file that is edited, when it is a plain one."""

    def make(self) -> None:
        """Write everything as it is at first."""
        for name, text in {**FIXED, **{name: text(0) for name, text in CONTENT.items()}}.items():
            self.write(name, text)
        for name, target in LINKS.items():
            (self.base / name).parent.mkdir(parents=True, exist_ok=True)
            (self.base / name).symlink_to(target)
        for name in ("tool", "other"):
            (self.base / "venv/lib/pkg" / name).chmod(0o755)

    def write(self, name: str, text: str) -> Path:
        """Write a file in place."""
        path = self.base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def some(self, dice: random.Random) -> tuple[Path, bytes]:
        """One of the edited files that is a plain one now, and other bytes for it of the same size."""
        names = [name for name in CONTENT if is_plain(self.base / name)]
        name = self.focus if self.focus in names else dice.choice(names)
        path = self.base / name
        before = path.read_bytes()
        texts = [CONTENT[name](number).encode() for number in range(4)]
        return path, dice.choice([text for text in texts if text != before])

    def stash(self, dice: random.Random) -> tuple[Path, Path]:
        """A file, and another one elsewhere with other bytes, an older time and the same mode."""
        path, data = self.some(dice)
        other = path.with_name(".stash")
        other.write_bytes(data)
        other.chmod(stat.S_IMODE(path.stat().st_mode))
        os.utime(other, (5, 5))
        return path, other

    def texts(self) -> dict[str, bytes]:
        """The bytes of the files that are edited."""
        return {name: (self.base / name).read_bytes() for name in CONTENT if is_plain(self.base / name)}

    def put_back(self, texts: Mapping[str, bytes]) -> None:
        """Give plain files the bytes that they had, in place."""
        for name, data in texts.items():
            if is_plain(self.base / name) and (self.base / name).read_bytes() != data:
                (self.base / name).write_bytes(data)

    def build(self, *words: str, hours: int = 1, prepare: Callable[[], object] = lambda: None) -> Answer:
        """Run bk in a separate process."""
        log = self.base / "log"
        wait_for_the_clock(self.base)
        child = os.fork()
        if child == 0:
            code = 99
            try:
                with log.open("w") as file:
                    os.dup2(file.fileno(), 1)
                    os.dup2(file.fileno(), 2)
                code = self._run(words or ("build", "//..."), hours, prepare)
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                with contextlib.suppress(Exception):
                    sys.stdout.flush()
                    sys.stderr.flush()
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return Answer(code, log.read_text().replace(str(self.base), "BASE"), self.shown())

    def _run(self, words: tuple[str, ...], hours: int, prepare: Callable[[], object]) -> int:
        os.chdir(self.base / "ws")
        os.environ.update({"PATH": f"{self.base}/venv/bin:/usr/bin:/bin", "HOME": f"{self.base}/home"})
        sys.path.append(f"{self.base}/venv/site")
        real = time.time_ns
        time.time_ns = lambda: real() + hours * HOUR
        stamps.BEGAN = time.time_ns()
        stamps._BEGAN = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        prepare()
        sys.argv = ["bk", "--nohome_rc", *words, "--disk_cache", f"{self.base}/cache"]
        return entry.main()

    def shown(self) -> dict[str, tuple[int, bytes]]:
        """All outputs in bk-out."""
        out = self.base / "ws/bk-out"
        found = (path for path in out.rglob("*") if not path.is_relative_to(out / ".state") and not path.is_dir())
        return {
            str(path.relative_to(out)): (path.lstat().st_mode, path.read_bytes() if path.exists() else b"")
            for path in found
        }

    def from_nothing(self, folder: Path) -> Answer:
        """The answer to the same files where there is no memory of any kind."""
        shutil.rmtree(folder, ignore_errors=True)
        skipped = shutil.ignore_patterns("bk-out", "cache", "log", "probe")
        shutil.copytree(self.base, folder, symlinks=True, ignore=skipped)
        return World(folder).build()


def is_plain(path: Path) -> bool:
    """Whether a regular file is there, and none is mounted on it."""
    return not path.is_symlink() and path.is_file() and f" {path} " not in Path("/proc/self/mountinfo").read_text()


def wait_for_the_clock(folder: Path) -> None:
    """Return when the clock of the file system has moved on, so that no later change has the time of an earlier one."""
    probe = folder / "probe"
    probe.write_text("")
    before = probe.stat().st_ctime_ns
    while probe.stat().st_ctime_ns == before:
        probe.write_text("")


# Edits.


def in_place(world: World, dice: random.Random) -> None:
    path, data = world.some(dice)
    path.write_bytes(data)


def in_place_with_its_time(world: World, dice: random.Random) -> None:
    path, data = world.some(dice)
    before = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def in_place_with_an_old_time(world: World, dice: random.Random) -> None:
    path, data = world.some(dice)
    path.write_bytes(data)
    os.utime(path, (1, 1))


def rsync_in_place(world: World, dice: random.Random) -> None:
    path, data = world.some(dice)
    before = path.stat()
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def another_size(world: World, dice: random.Random) -> None:
    path, data = world.some(dice)
    before = path.stat()
    path.write_bytes(data + b"\n" * dice.randrange(1, 3))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def renamed_over(world: World, dice: random.Random) -> None:
    path, data = world.some(dice)
    scratch = path.with_name(".scratch")
    scratch.write_bytes(data)
    scratch.chmod(stat.S_IMODE(path.stat().st_mode))
    scratch.rename(path)


def rsync_with_times(world: World, dice: random.Random) -> None:
    path, data = world.some(dice)
    before = path.stat()
    scratch = path.with_name(".scratch")
    scratch.write_bytes(data)
    scratch.chmod(stat.S_IMODE(before.st_mode))
    os.utime(scratch, ns=(before.st_atime_ns, before.st_mtime_ns))
    scratch.rename(path)


def older_moved_in(world: World, dice: random.Random) -> None:
    path, other = world.stash(dice)
    other.rename(path)


def copied_over(world: World, dice: random.Random) -> None:
    path, other = world.stash(dice)
    shutil.copy2(other, path)


def tar_with_fixed_times(world: World, dice: random.Random) -> None:
    path, data = world.some(dice)
    header = tarfile.TarInfo(path.name)
    header.size, header.mtime, header.mode = len(data), 1, stat.S_IMODE(path.stat().st_mode)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(header, io.BytesIO(data))
    buffer.seek(0)
    with tarfile.open(fileobj=buffer) as tar:
        tar.extractall(path.parent, filter="fully_trusted")


def swapped_files(world: World, _dice: random.Random) -> None:
    one, two = world.base / "ws/b/sub/y.txt", world.base / "ws/b/sub/z.txt"
    exchange(one, two)


def swapped_folders(world: World, _dice: random.Random) -> None:
    exchange(world.base / "ws/d/v1", world.base / "ws/d/v2")


def swapped_packages(world: World, dice: random.Random) -> None:
    """The folder of a package gives way to one that was made earlier, with the same names."""
    folder = world.base / "ws/a"
    unmounted(folder / "run.sh")
    other = world.base / "stash-a"
    shutil.rmtree(other, ignore_errors=True)
    shutil.copytree(folder, other, symlinks=True)
    text = CONTENT["ws/a/one.txt"](dice.randrange(4))
    (other / "one.txt").write_text(text)
    wait_for_the_clock(world.base)
    exchange(folder, other)


def exchange(one: Path, two: Path) -> None:
    aside = one.with_name(".aside")
    one.rename(aside)
    two.rename(one)
    aside.rename(two)


def retargeted_link(world: World, dice: random.Random) -> None:
    relink(world.base / "ws/c/link.txt", f"../d/v{dice.choice('12')}/data.txt")


def retargeted_folder(world: World, dice: random.Random) -> None:
    relink(world.base / "ws/c/far", f"../../outside/{dice.choice(['one', 'two'])}")


def retargeted_tool(world: World, dice: random.Random) -> None:
    relink(world.base / "venv/bin/tool", f"../lib/pkg/{dice.choice(['tool', 'other'])}")


def relink(path: Path, target: str) -> None:
    scratch = path.with_name(".scratch")
    scratch.symlink_to(target)
    scratch.rename(path)


def link_for_a_file(world: World, dice: random.Random) -> None:
    path = world.base / "ws/b/x.txt"
    if is_plain(path):
        path.unlink()
        path.symlink_to("../d/v1/data.txt")
    elif path.is_symlink():
        path.unlink()
        path.write_text(CONTENT["ws/b/x.txt"](dice.randrange(4)))


def mounted_file(world: World, dice: random.Random) -> None:
    path = world.base / "ws/a/run.sh"
    if not unmounted(path):
        other = world.base / "outside/run"
        other.write_text(CONTENT["ws/a/run.sh"](dice.randrange(4)))
        shutil.copystat(path, other)
        mount(other, path)


def mounted_folder(world: World, dice: random.Random) -> None:
    path = world.base / "ws/b/sub"
    if not unmounted(path):
        other = world.base / "outside/sub"
        shutil.rmtree(other, ignore_errors=True)
        shutil.copytree(path, other)
        (other / "y.txt").write_text(CONTENT["ws/b/sub/y.txt"](dice.randrange(4)))
        mount(other, path)


def mount(source: Path, target: Path) -> None:
    if LIBC.mount(os.fsencode(source), os.fsencode(target), None, MS_BIND, None):
        raise OSError(ctypes.get_errno(), f"cannot mount {target}")


def unmounted(path: Path) -> bool:
    return bool(LIBC.umount2(os.fsencode(path), MNT_DETACH) == 0)


def replaced_package(world: World, dice: random.Random) -> None:
    folder = world.base / "venv/lib/pkg"
    other = world.base / "venv/lib/new"
    shutil.copytree(folder, other)
    (other / dice.choice(["tool", "other"])).write_text(CONTENT["venv/lib/pkg/tool"](dice.randrange(4)))
    for name in ("tool", "other"):
        os.utime(other / name, (1, 1))
    shutil.rmtree(folder)
    other.rename(folder)


def replaced_plugin(world: World, dice: random.Random) -> None:
    """A plugin of the same version, size and time, which may be broken."""
    word = dice.choice(["WORDS = 'good'", "WORDS = 'bad!\""])
    world.write("venv/site/edited_plugin.py", GOOD_PLUGIN.replace("WORDS = 'good'", word))
    os.utime(world.base / "venv/site/edited_plugin.py", (1, 1))


def replaced_entry_points(world: World, dice: random.Random) -> None:
    word = dice.choice(["edited_plugin", "absent_plugin"])
    world.write("venv/site/edited-1.0.dist-info/entry_points.txt", f"[bk]\nedited = {word}\n")
    os.utime(world.base / "venv/site/edited-1.0.dist-info/entry_points.txt", (1, 1))


def another_mode(world: World, _dice: random.Random) -> None:
    path = world.base / "ws/a/run.sh"
    path.chmod(path.stat().st_mode ^ 0o111)


def file_that_comes(world: World, dice: random.Random) -> None:
    folder = world.base / "ws/b/sub"
    before = folder.stat()
    (folder / f"new{dice.randrange(3)}.txt").write_text("new")
    os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))


def file_that_goes(world: World, dice: random.Random) -> None:
    folder = world.base / "ws/b/sub"
    before = folder.stat()
    found = sorted(folder.glob("new*.txt"))
    if found:
        dice.choice(found).unlink()
    os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))


def package_that_comes_or_goes(world: World, _dice: random.Random) -> None:
    path = world.base / "ws/b/sub/BUILD.py"
    if path.exists():
        path.unlink()
    else:
        path.write_text("")


def some_output(world: World, dice: random.Random) -> Path | None:
    out = world.base / "ws/bk-out"
    found = sorted(path for path in out.rglob("*") if path.is_file() and ".state" not in path.parts)
    return dice.choice(found) if found else None


def damaged_output(world: World, dice: random.Random) -> None:
    """Written through its hard link in bk-out, with its size and time."""
    damage(some_output(world, dice), dice)


def damaged_blob(world: World, dice: random.Random) -> None:
    found = sorted((world.base / "cache/cas").glob("*/*"))
    damage(dice.choice(found) if found else None, dice)


def damage(path: Path | None, dice: random.Random) -> None:
    data = path.read_bytes() if path else b""
    if path and data:
        before = path.stat()
        at = dice.randrange(len(data))
        path.chmod(0o755)
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        path.chmod(stat.S_IMODE(before.st_mode))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def another_mode_of_an_output(world: World, dice: random.Random) -> None:
    path = some_output(world, dice)
    if path:
        path.chmod(dice.choice([0o444, 0o644, 0o755]))


def output_that_goes(world: World, dice: random.Random) -> None:
    path = some_output(world, dice)
    if path:
        path.unlink()


def output_that_comes(world: World, dice: random.Random) -> None:
    for folder in sorted((world.base / "ws/bk-out").glob("*/image/layout"))[: dice.randrange(1, 3)]:
        before = folder.stat()
        (folder / "more").write_text("more")
        os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))


def output_that_is_a_link(world: World, dice: random.Random) -> None:
    path = some_output(world, dice)
    if path:
        path.unlink()
        path.symlink_to(world.base / "ws/a/one.txt")


def result_that_goes(world: World, dice: random.Random) -> None:
    found = sorted((world.base / "cache/ac").glob("*/*"))
    if found:
        dice.choice(found).unlink()


def damaged_memory(world: World, dice: random.Random) -> None:
    """One of bk's own notes: answers, packages, digests, history."""
    state = world.base / "ws/bk-out/.state"
    found = sorted(path for path in state.rglob("*") if path.is_file() and not path.is_relative_to(state / "keys"))
    if found:
        path = dice.choice(found)
        data = path.read_bytes()
        path.write_bytes(dice.choice([b"", data[: len(data) // 2], b"garbage", data + data]))


def nothing(_world: World, _dice: random.Random) -> None:
    pass


EDITS: dict[str, Edit] = {
    one.__name__: one
    for one in (
        in_place,
        in_place_with_its_time,
        in_place_with_an_old_time,
        rsync_in_place,
        another_size,
        renamed_over,
        rsync_with_times,
        older_moved_in,
        copied_over,
        tar_with_fixed_times,
        swapped_files,
        swapped_folders,
        swapped_packages,
        retargeted_link,
        retargeted_folder,
        retargeted_tool,
        link_for_a_file,
        mounted_file,
        mounted_folder,
        replaced_package,
        replaced_plugin,
        replaced_entry_points,
        another_mode,
        file_that_comes,
        file_that_goes,
        package_that_comes_or_goes,
        damaged_output,
        damaged_blob,
        another_mode_of_an_output,
        output_that_goes,
        output_that_comes,
        output_that_is_a_link,
        result_that_goes,
        damaged_memory,
        nothing,
    )
}


# Moments during a build.


def after_call(module: Any, name: str, number: int, then: Callable[[], object]) -> None:
    """Do something after the call of that number of a function, before it returns."""
    real, count = getattr(module, name), [0]

    def spied(*given: Any, **named: Any) -> Any:
        found = real(*given, **named)
        count[0] += 1
        if count[0] == number:
            then()
        return found

    setattr(module, name, spied)


def before_call(module: Any, name: str, then: Callable[[], object]) -> None:
    """Do something before the first call of a function."""
    real = getattr(module, name)
    done: list[str] = []

    def spied(*given: Any, **named: Any) -> Any:
        if not done:
            done.append(name)
            then()
        return real(*given, **named)

    setattr(module, name, spied)


Moment = Callable[[random.Random, Callable[[], object]], None]
MOMENTS: dict[str, Moment] = {
    "after a look": lambda dice, then: after_call(stamps, "of", dice.randrange(1, 400), then),
    "after a read": lambda dice, then: after_call(digest, "of_file", dice.randrange(1, 6), then),
    "after loading": lambda _, then: before_call(analysis, "analyze", then),
    "while an action runs": lambda _, then: before_runners(then),
    "before outputs are shown": lambda _, then: before_call(artifacts, "write", then),
    "before the answer is kept": lambda _, then: before_call(build_command, "_keep", then),
}


def before_runners(then: Callable[[], object]) -> None:
    """Do something before each action that runs."""

    def spied(real: Runner) -> Runner:
        def run(action: Action, inputs: Mapping[str, Node], context: RunContext) -> Outcome:
            then()
            return real(action, inputs, context)

        return run

    for name in ("Image", "Genrule"):
        table.RUNNERS[name] = spied(table.RUNNERS[name])


def join(action: Action, inputs: Mapping[str, Node], context: RunContext) -> Outcome:
    """Play a genrule: all that it would be given, one after the other."""
    folder = context.scratch(action)
    data = b"".join(Path(getattr(inputs[name], "path", "")).read_bytes() for name in sorted(inputs))
    (folder / "out").write_bytes(data)
    return Outcome(Status.PASSED, {"out": str(folder / "out")})


# Rules, broken on purpose.


def without_field(number: int) -> None:
    real = stamps.of_status

    def broken(found: os.stat_result) -> stamps.Stamp:
        stamp = list(real(found))
        stamp[number] = 0
        ctime, mtime, size, inode, device, mode = stamp
        return ctime, mtime, size, inode, device, mode

    stamps.of_status = broken
    plainly()


def plainly() -> None:
    """Let the null build ask `stamps` too, whose answer it works out itself."""

    def changed(folders: list[null_build.Folder]) -> set[int]:
        found, number = set(), 0
        for folder in folders:
            trusted = folder[1] is not None and stamps.of(folder[0]) == folder[1]
            for path, known in up_to_date._unpacked(folder):
                if not trusted and stamps.of(path) != known:
                    found.add(number)
                number += 1
        return found

    null_build._changed = changed


def without_ctime_of_blobs() -> None:
    real = stamps.of

    def broken(path: str) -> stamps.Stamp | None:
        found = real(path)
        return (0, *found[1:]) if found is not None and ("/cas/" in path or "/bk-out/" in path) else found

    stamps.of = broken
    plainly()


def digests_stamped_after_the_read() -> None:
    def look(self: FileDigests, path: str) -> tuple[digest.Digest, stamps.Stamp, bool]:
        now = stamps.of(path)
        known = self._known.get(path)
        if known is not None and known[0] == now:
            fresh = digest.Digest(known[1], known[0][2]), known[0], False
        else:
            found = digest.of_file(path)
            stamp = dependencies.current().look(path)
            assert stamp is not None
            self._changed, self._known[path] = True, (stamp, found.hash)
            fresh = found, stamp, False
        self._fresh[path] = fresh
        return fresh

    FileDigests._look = look  # type: ignore[method-assign]


def stamped_at_the_end() -> None:
    def first(self: Dependencies, path: str) -> stamps.Stamp | None:
        return stamps.of(path)

    Dependencies.first = first  # type: ignore[method-assign]


def without_modes() -> None:
    setattr(os, "chmod", lambda *_, **__: None)  # noqa: B010
    setattr(artifacts, "_shows", lambda path, node, digests, mode=None: real_shows(path, node, digests))  # noqa: B010


real_shows = artifacts._shows


RULES: dict[str, Callable[[], object]] = {
    "": lambda: None,
    "ctime": lambda: without_field(0),
    "ctime of blobs": without_ctime_of_blobs,
    "stamps of the first look": stamped_at_the_end,
    "digests stamped before the read": digests_stamped_after_the_read,
    "inputs that are still the same": lambda: setattr(executor.Executor, "_are_still", lambda *_: True),
    "outputs that are looked at": lambda: setattr(artifacts, "_shows", lambda path, *_: os.path.lexists(path)),
    "folders of outputs that are looked at": lambda: setattr(
        artifacts, "_shows_all", lambda path, *_: os.path.isdir(path)
    ),
    "modes of blobs": without_modes,
    "blobs that are looked at when stored": lambda: setattr(cas.Cas, "intact", cas.Cas.has),
    "code of plugins": lambda: setattr(Dependencies, "note_code", lambda self: None),
}


def main() -> int:
    """Make random edits; 1 when an answer was wrong."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--without", default="", choices=RULES)
    parser.add_argument("--only", default=",".join(EDITS))
    parser.add_argument("--during", default=",".join(MOMENTS))
    options = parser.parse_args()
    sys.dont_write_bytecode = True
    table.RUNNERS["Genrule"] = join
    RULES[options.without]()
    base = options.folder.resolve()
    world = World(base / "world")
    world.make()
    found = rounds(world, options, random.Random(options.seed))
    for path in ("ws/a/run.sh", "ws/b/sub"):
        while unmounted(world.base / path):
            pass
    print(found or f"{options.rounds} rounds without a wrong answer")
    return 1 if found else 0


def rounds(world: World, options: argparse.Namespace, dice: random.Random) -> str:
    """What went wrong, or nothing."""
    for number in range(options.rounds):
        names = dice.choices(options.only.split(","), k=dice.choice([1, 1, 2]))
        moment = dice.choice(options.during.split(",")) if dice.random() < 0.4 else ""
        world.focus = dice.choice([*CONTENT, ""]) if moment else ""
        seed = dice.randrange(1 << 30)
        hours = dice.choice([1] * 8 + [-1])
        if number:
            print(f"round {number}, seed {options.seed}: {', '.join(names)}; {moment}; clock {hours:+} h", flush=True)
            edit = editor(world, names, seed)
            if moment:
                stir(world, moment, random.Random(seed))
                before = world.texts()
                world.build(prepare=partial(MOMENTS[moment], random.Random(seed), edit))
            else:
                edit()
        if number % 4 == 1:
            why = world.build("why", "//...", "--json")
        answer, fresh = world.build(hours=hours), world.from_nothing(world.base.parent / "fresh")
        problem = difference(answer, fresh)
        if not problem and number % 4 == 1 and fresh.code == 0:
            problem = disagreement(why, answer)
        if not problem and moment and number:
            world.put_back(before)
            problem = difference(world.build(), world.from_nothing(world.base.parent / "fresh"))
        if problem:
            return f"round {number}, seed {options.seed}, after {', '.join(names)} {moment}: {problem}"
        if fresh.code:
            mend(world)
        world.build()
    return ""


def stir(world: World, moment: str, dice: random.Random) -> None:
    """See to it that the next build looks at things, and runs something when the moment is one of a run."""
    if moment == "while an action runs" or dice.random() < 0.4:
        in_place(world, dice)
    elif dice.random() < 0.5:
        shutil.rmtree(world.base / "ws/bk-out/.state/answers", ignore_errors=True)
    else:
        os.utime(world.some(dice)[0], (3, 3))


def editor(world: World, names: list[str], seed: int) -> Callable[[], None]:
    """Makes these edits, once."""
    done: list[int] = []

    def edit() -> None:
        if not done:
            done.append(seed)
            for name in names:
                try:
                    EDITS[name](world, random.Random(f"{seed}{name}"))
                except OSError as error:  # two edits that do not go together, such as a mount and a rename
                    print(f"  {name} is not possible now: {error}", flush=True)

    return edit


def mend(world: World) -> None:
    """Make a workspace that builds out of one that does not."""
    for name in ("venv/site/edited_plugin.py", "venv/site/edited-1.0.dist-info/entry_points.txt"):
        world.write(name, FIXED[name])
    (world.base / "ws/b/sub/BUILD.py").unlink(missing_ok=True)


def difference(answer: Answer, fresh: Answer) -> str:
    """In what the answer differs from that from nothing; nothing when it does not."""
    if answer.code not in (0, 1, 2) or answer.code != fresh.code:
        return f"exit code {answer.code}, and from nothing {fresh.code}\n{answer.text}\n{fresh.text}"
    if fresh.code:
        return ""
    if answer.actions != fresh.actions:
        return f"{answer.actions} actions, and from nothing {fresh.actions}"
    folders = {name.partition("/layout/")[0] for name in fresh.shown if "/layout/" in name}
    shown = {
        name: one
        for name, one in answer.shown.items()
        if name.partition("/layout/")[0] in folders or name in fresh.shown
    }
    wrong = sorted(name for name in shown.keys() | fresh.shown.keys() if shown.get(name) != fresh.shown.get(name))
    return f"bk-out differs: {', '.join(wrong)}\n{answer.text}" if wrong else ""


def disagreement(why: Answer, answer: Answer) -> str:
    """In what `bk why`, asked before the build, was wrong."""
    if why.code:
        return f"`bk why` failed\n{why.text}"
    said = json.loads(why.text[why.text.index("[") : why.text.rindex("]") + 1])
    would = [one["action"] for one in said if not one["cached"]]
    ran = re.search(r": (\d+) ran, ", answer.text)
    count = int(ran[1]) if ran else -1
    # An action that runs may bring back what another one would run for.
    if (count == 0) != (not would) or count > len(would):
        return f"`bk why` said that {would} would run, and {count} did\n{why.text}\n{answer.text}"
    return ""


if __name__ == "__main__":
    sys.exit(main())
