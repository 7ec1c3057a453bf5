"""The gallery of mistakes: `tests/gallery` says how each is made, and `docs/mistakes.md` what bk prints.

`python tests/mistakes.py` makes all of them, and writes the page again.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from servers import Handler, cache_server

REPOSITORY = Path(__file__).parents[1]
PAGE = REPOSITORY / "docs/mistakes.md"
SECTIONS = ("build-files", "command-line", "tests", "cells", "pins-and-images", "plugins", "environment")
"""The files of `tests/gallery` in the order of the page."""
HOME = "home/you"
PROJECT = f"{HOME}/project"
OUTPUT = "output"
WORKSPACE = 'from bkrules import workspace\nworkspace(name = "project")\n'
INTRODUCTION = """# What bk says of mistakes

Each of these is made by a test, which compares what bk prints with this page, word for word. The workspace is in
`/home/you/project`, and its `WORKSPACE.py` names it, unless another is shown. [Debug a cell](debugging.md) tells what to do when a
test fails.
"""
PROGRAM = """
import json, os, sys
import bkrules.build.analysis, bkrules.build.execute, bkrules.commands.build, bkrules.loading.loader, bkrules.plugin.manager
from bkrules.__main__ import main
for line in sys.stdin:
    folder, environment, paths, words, output = json.loads(line)
    child = os.fork()
    if not child:
        code = 70
        try:
            os.chdir(folder)
            os.environ.clear()
            os.environ.update(environment)
            sys.path[:0], sys.argv = paths, ["bk", *words]
            for descriptor, path in ((0, os.devnull), (1, output)):
                os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), descriptor)
            os.dup2(1, 2)
            code = main()
            sys.stdout.flush()
        finally:
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Forks a bk for each line that it reads. The imports of bk, which each has then, take longer than most mistakes."""


class Started:
    """A process from which each bk is forked."""

    def __init__(self) -> None:
        command = [sys.executable, "-I", "-c", PROGRAM]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(
        self, folder: Path, environment: Mapping[str, str], paths: Sequence[str], words: Sequence[str], output: Path
    ) -> int:
        """Run bk with these words in a folder; return its exit code. Both of its outputs go to a file."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(folder), environment, paths, words, str(output)]) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


@dataclass(frozen=True)
class Mistake:
    """One mistake: files, and a command that meets them.

    A file's path is relative to the project; `~/` is the home folder. A folder `plugins/NAME` with a pyproject.toml is an installed
    plugin. `server` is the status and the text of each answer of a server, whose address is `SERVER` in the command and the files,
    and `REGISTRY` without a scheme. `common` are files that the page does not show. With `built`, cells run, on tools of this
    repository, which are in the folder `BUILT`.
    """

    name: str
    run: str
    files: Mapping[str, str] = field(default_factory=dict)
    folder: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    server: Sequence[object] = ()
    note: str = ""
    common: Mapping[str, str] = field(default_factory=dict)
    built: bool = False


@dataclass(frozen=True)
class Section:
    """Mistakes of one kind, and what the page says first."""

    title: str
    mistakes: Sequence[Mistake]
    about: str = ""


def sections() -> list[Section]:
    """Return all mistakes, in the order of the page."""
    found = []
    for name in SECTIONS:
        document = tomllib.loads((REPOSITORY / f"tests/gallery/{name}.toml").read_text())
        common = document.get("common", {})
        built = document.get("built", False)
        mistakes = [Mistake(common=common, built=built, **one) for one in document["mistake"]]
        found.append(Section(document["title"], mistakes, document.get("about", "")))
    return found


def told(mistake: Mistake, base: Path, bk: Started) -> str:
    """Make a mistake in an empty folder; return its part of the page."""
    with _server(mistake) as address:
        place(mistake, base, address)
        code = _run(mistake, base, address, bk)
    printed = _plain((base / OUTPUT).read_text(), base, address)
    texts = [_shown(path, text) for path, text in mistake.files.items()]
    note = [mistake.note] if mistake.note else []
    shown = f"```console\n$ {_typed(mistake)}\n{printed}```\n\nExit code {code}.\n"
    return "\n".join([f"### {mistake.name}\n", *note, *texts, shown])


def _shown(path: str, text: str) -> str:
    """Return the part of the page about a file."""
    if not text:
        return f"`{path}` is an empty file.\n"
    return f"`{path}`:\n\n```text\n{_of_page(text.strip())}\n```\n"


def place(mistake: Mistake, base: Path, address: str = "") -> None:
    """Write the files of a mistake, and install its plugins."""
    project = base / PROJECT
    project.mkdir(parents=True)
    for name, text in {"WORKSPACE.py": WORKSPACE, **mistake.common, **mistake.files}.items():
        path = base / HOME / name[2:] if name.startswith("~/") else project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = text.replace("SERVER", address).replace("REGISTRY", address.removeprefix("http://"))
        path.write_text(text.replace("BUILT", str(REPOSITORY / "bk-out/@bk_tools")))
    for metadata in project.glob("plugins/*/pyproject.toml"):
        _install(metadata)


def _install(pyproject: Path) -> None:
    """Install a plugin as `pip install --editable` does: where its files are."""
    project = tomllib.loads(pyproject.read_text())["project"]
    points = "".join(f"{name} = {value}\n" for name, value in project["entry-points"]["bk"].items())
    requires = "".join(f"Requires-Dist: {one}\n" for one in project.get("dependencies", ()))
    folder = pyproject.parent / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    folder.mkdir()
    head = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (folder / "METADATA").write_text(head + requires)
    (folder / "entry_points.txt").write_text(f"[bk]\n{points}")


def _run(mistake: Mistake, base: Path, address: str, bk: Started) -> int:
    """Run bk as its user does, with an environment in which little is set."""
    project = base / PROJECT
    plugins = [str(path.parent) for path in sorted(project.glob("plugins/*/pyproject.toml"))]
    words = [word.replace("SERVER", address) for word in shlex.split(mistake.run)[1:]]
    environment = {"HOME": str(base / HOME), "PATH": os.environ["PATH"], "LANG": "C.UTF-8", **mistake.environment}
    folder = base / HOME / mistake.folder[2:] if mistake.folder.startswith("~") else project / mistake.folder
    return bk.run(folder, environment, plugins, words, base / OUTPUT)


def _typed(mistake: Mistake) -> str:
    """Return the command as its user types it."""
    change = f"cd {mistake.folder} && " if mistake.folder else ""
    variables = "".join(f"{name}={shlex.quote(value)} " for name, value in mistake.environment.items())
    return _of_page(f"{change}{variables}{mistake.run}")


def _of_page(text: str) -> str:
    return text.replace("SERVER", "http://127.0.0.1:PORT").replace("REGISTRY", "127.0.0.1:PORT")


def _plain(printed: str, base: Path, address: str) -> str:
    """Return what was printed without what differs between machines and runs."""
    for here, anywhere in (
        (str(base), ""),
        (sys.executable, "/usr/bin/python3"),
        (str(REPOSITORY), "/usr/lib/bk"),
        (f"linux-{os.uname().machine}", "linux-x86_64"),
    ):
        printed = printed.replace(here, anywhere)
    if address:
        printed = printed.replace(address, "http://127.0.0.1:PORT").replace(address[len("http://") :], "127.0.0.1:PORT")
    printed = re.sub(r"(available fixtures: ).*", r"\1...", printed)
    return re.sub(r"\b\d+\.\d+( ?s)\b", r"0.1\1", printed)


@contextmanager
def _server(mistake: Mistake) -> Iterator[str]:
    """Yield the address of the mistake's server, if it has one."""
    if not mistake.server:
        yield ""
        return
    status, text = mistake.server

    def answer(handler: Handler) -> bool:
        assert isinstance(status, int)
        return handler.reply(status, str(text).encode())

    with cache_server() as cache:
        cache.answer = answer
        yield cache.address


def page(parts: Mapping[str, str]) -> str:
    """Return the page, of the parts of all mistakes by their names."""
    text = INTRODUCTION
    for section in sections():
        text += f"\n## {section.title}\n\n{section.about}" + "\n".join(
            parts[mistake.name] for mistake in section.mistakes
        )
    return text


def main(names: Sequence[str]) -> None:
    """Print the parts of the mistakes whose names contain one of the words; without words, write the page."""
    mistakes = [mistake for section in sections() for mistake in section.mistakes]
    chosen = [one for one in mistakes if not names or any(word in one.name for word in names)]
    with tempfile.TemporaryDirectory() as folder, closing(Started()) as bk:
        parts = {one.name: told(one, Path(folder) / str(number), bk) for number, one in enumerate(chosen)}
    if names:
        print("\n".join(parts.values()))
    else:
        PAGE.write_text(page(parts))


if __name__ == "__main__":
    main(sys.argv[1:])
