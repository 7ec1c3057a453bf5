"""The tools of the race: how each is told of a graph, and the command that it is fairly judged by."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from bench.graphs import Graph

REPOSITORY = Path(__file__).resolve().parents[2]
JOBS = "2"
FAST_SETUP = 1000
"""Above this size Bazel builds without its sandbox: only builds of nothing, or of one file, are timed there."""


class Tool:
    """A build tool, and the program that is it. With `has_cache`, what was built once need not be built again."""

    name = ""
    out = "{folder}/{name}.out"
    state: tuple[str, ...] = ()
    has_cache = False

    def __init__(self, program: str) -> None:
        self.program = program

    def graph(self, folder: Path, size: int) -> Graph:
        """Write a graph below `folder`, and this tool's build files."""
        graph = Graph(folder / f"{self.name}-{size}", size, self.out)
        graph.write_inputs()
        self.describe(graph)
        return graph

    def describe(self, graph: Graph) -> None:
        """Write the build files."""
        raise NotImplementedError

    def command(self, graph: Graph, *, clean: bool = False) -> list[str]:
        """What builds everything, in the folder of the graph; `clean` when nothing is there yet and no cache shall help."""
        raise NotImplementedError

    def forget(self, graph: Graph, *, cache: bool) -> None:
        """Remove outputs and state, and with `cache` what is cached too."""
        for _, output in graph.pairs():
            (graph.folder / output).unlink(missing_ok=True)
        for name in (*self.state, *(["cache"] if cache else [])):
            _remove(graph.folder / name)

    def version(self) -> str:
        """Name and version."""
        done = subprocess.run([self.program, "--version"], capture_output=True, text=True, check=True)
        number = re.search(r"\d+\.\d[\w.]*", done.stdout)
        return f"{self.name} {number[0] if number else 'of an unknown version'}"

    def server_memory(self, _graph: Graph) -> int:
        """The highest memory of its server, in KiB; 0 without one."""
        return 0


class Bk(Tool):
    """bk, with each action in its sandbox."""

    name = "bk"
    out = "bk-out/{folder}/{name}/{name}.out"
    state = ("bk-out",)
    has_cache = True

    def describe(self, graph: Graph) -> None:
        """One package for each folder, with a genrule for each copy."""
        _write(
            graph.folder / "WORKSPACE.py",
            ["from bkrules import host_binary, workspace", 'workspace(name = "bench")', 'host_binary(name = "cp")'],
        )
        for folder, names in graph.packages().items():
            rules = [
                f'genrule(name = "{name}", srcs = ["{name}.in"], outs = ["{name}.out"], tools = ["//:cp"],'
                ' cmd = ["$(location //:cp)", "$<", "$@"])'
                for name in names
            ]
            _write(graph.folder / folder / "BUILD.py", ["from bkrules import genrule", *rules])

    def command(self, graph: Graph, *, clean: bool = False) -> list[str]:
        """The launcher, as a user calls it. Its cache is of this graph alone."""
        del clean
        return [self.program, "build", "//...", "--jobs", JOBS, "--disk_cache", str(graph.folder / "cache")]


class Ninja(Tool):
    """ninja."""

    name = "ninja"
    state = (".ninja_log", ".ninja_deps")

    def describe(self, graph: Graph) -> None:
        """One file with a statement for each copy."""
        rules = [
            "rule cp",
            "  command = cp $in $out",
            *(f"build {made}: cp {source}" for source, made in graph.pairs()),
        ]
        _write(graph.folder / "build.ninja", rules)

    def command(self, graph: Graph, *, clean: bool = False) -> list[str]:
        """No flags but the jobs."""
        del graph, clean
        return [self.program, "-j", JOBS]


class Doit(Tool):
    """doit, with its actions as lists, so that no shell runs."""

    name = "doit"
    state = (".doit.db",)

    def describe(self, graph: Graph) -> None:
        """One task with a subtask for each copy."""
        rules = [
            f"FILES = {list(graph.pairs())!r}",
            "def task_copy():",
            "    for source, made in FILES:",
            "        yield {'name': made, 'actions': [['cp', source, made]], 'file_dep': [source], 'targets': [made]}",
        ]
        _write(graph.folder / "dodo.py", rules)

    def command(self, graph: Graph, *, clean: bool = False) -> list[str]:
        """Threads only where there is much to do: they cost time elsewhere."""
        del graph
        return [
            self.program,
            "run",
            "-v",
            "0",
            "--backend",
            "sqlite3",
            *(["-n", JOBS, "-P", "thread"] if clean else []),
        ]


class Scons(Tool):
    """SCons, with a cache for what is restored and without one for clean builds."""

    name = "SCons"
    state = (".sconsign.dblite",)
    has_cache = True

    def describe(self, graph: Graph) -> None:
        """One file; no tools are looked for on the machine."""
        rules = [
            "environment = Environment(tools = [])",
            "CacheDir('cache')",
            f"for source, made in {list(graph.pairs())!r}:",
            "    environment.Command(made, source, [['cp', '$SOURCE', '$TARGET']])",
        ]
        _write(graph.folder / "SConstruct", rules)

    def command(self, graph: Graph, *, clean: bool = False) -> list[str]:
        """Its default way to decide what changed, by content."""
        del graph
        return [self.program, "-Q", "-s", "-j", JOBS, *(["--cache-disable"] if clean else [])]


class Bazel(Tool):
    """Bazel with its server, which is warm, and its sandbox."""

    name = "Bazel"
    out = "bazel-bin/{folder}/{name}.out"
    has_cache = True

    def describe(self, graph: Graph) -> None:
        """One package for each folder, with a genrule for each copy."""
        _write(graph.folder / "WORKSPACE", [])
        for folder, names in graph.packages().items():
            rules = [
                f'genrule(name = "{name}", srcs = ["{name}.in"], outs = ["{name}.out"], cmd = "cp $< $@")'
                for name in names
            ]
            _write(graph.folder / folder / "BUILD", rules)

    def command(self, graph: Graph, *, clean: bool = False) -> list[str]:
        """Quiet, and with the sandbox that it has by default."""
        del clean
        flags = ["--jobs", JOBS, "--noshow_progress", "--nosandbox_debug", f"--disk_cache={graph.folder}/cache"]
        local = ["--spawn_strategy=local"] if graph.size > FAST_SETUP else []
        return [*self._bazel(graph), "build", "//...", *flags, *local]

    def forget(self, graph: Graph, *, cache: bool) -> None:
        """By its own command, which forgets what the server knows too."""
        subprocess.run([*self._bazel(graph), "clean"], cwd=graph.folder, capture_output=True, check=True)
        if cache:
            _remove(graph.folder / "cache")

    def version(self) -> str:
        """The version of Debian's package, whose program does not know its own; otherwise that in the name of npm's."""
        asked = ["dpkg-query", "--show", "--showformat", "${Version}", "bazel-bootstrap"]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        named = re.search(r"bazel-(\d[\d.]*\d)-linux", self.program)
        return f"Bazel {named[1] if named else done.stdout or 'of an unknown version'}"

    def server_memory(self, graph: Graph) -> int:
        """What the kernel says of the server's process."""
        done = subprocess.run(
            [*self._bazel(graph), "info", "server_pid"], cwd=graph.folder, capture_output=True, text=True, check=True
        )
        status = Path("/proc", done.stdout.strip(), "status").read_text()
        found = re.search(r"VmHWM:\s+(\d+)", status)
        return int(found[1]) if found else 0

    def _bazel(self, graph: Graph) -> list[str]:
        return [self.program, f"--output_user_root={graph.folder}.server", "--nohome_rc"]


def _write(file: Path, lines: Iterable[str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{line}\n" for line in lines))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
