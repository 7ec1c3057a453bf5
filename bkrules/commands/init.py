"""`bk init`: a workspace in an empty folder or an existing repository."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bkrules import errors
from bkrules.commands.parser import command
from bkrules.errors import UsageError
from bkrules.loading.root import MARKER, root_of
from bkrules.model.label import LabelError, is_module, parse_label
from bkrules.starter import files
from bkrules.starter.files import CI, KEPT, LAUNCHER, PACKAGE, File

if TYPE_CHECKING:
    from bkrules.commands.parser import Commands
    from bkrules.starter.own_plugins import OwnPlugin

TOOLS = "bk_tools"
PYTEST = ("conftest.py", "pyproject.toml", "pytest.ini", "pytest.toml", "setup.cfg", "test", "tests", "tox.ini")
"""Names in the root folder of a repository in which pytest may run."""


def add(commands: Commands) -> None:
    """Add the command of this module to the parser."""
    init = command(commands, "init", _init, "make a workspace with a first matrix in a folder; never write over a file")
    init.add_argument(
        "folder", nargs="?", default=".", metavar="FOLDER", help="made when it does not exist (default: .)"
    )
    init.add_argument(
        "--name", dest="workspace", metavar="NAME", help="the workspace's name (default: that of the folder)"
    )
    init.add_argument(
        "--package", default=PACKAGE, metavar="PACKAGE", help="the matrix's package (default: %(default)s)"
    )
    init.add_argument("--ci", choices=sorted(CI), help="also write a recipe for this CI, and the launcher that it runs")
    init.add_argument(
        "--launcher",
        action="store_true",
        help=f"also write {LAUNCHER}, a script that installs this version of bk on a machine with Python alone, and the hashes",
    )
    init.add_argument(
        "--find_links",
        action="append",
        default=[],
        metavar="FOLDER-or-URL",
        help="where pip finds wheels for the launcher, besides its index; a folder in the repository",
    )


def _init(arguments: argparse.Namespace) -> int:
    root = Path(os.path.abspath(arguments.folder))
    if not root.is_dir() and os.path.lexists(root):
        raise UsageError("not-a-folder", f"bk init: {root} is not a folder", hint="name a folder, or a new one")
    package = _package(arguments.package)
    is_new = not os.path.lexists(root / MARKER)
    has_launcher = (root / LAUNCHER).is_file() and os.access(root / LAUNCHER, os.X_OK)
    needs_launcher = arguments.launcher or (arguments.ci is not None and not has_launcher)
    if not is_new and not needs_launcher and arguments.ci is None:
        hint = f"write its first matrix yourself, or add to it with  --ci={'|'.join(sorted(CI))}  and  --launcher"
        raise UsageError("exists", f"bk init: {root} is a workspace already: it has a {MARKER}", hint=hint)
    if arguments.find_links and not needs_launcher:
        raise UsageError("usage", "bk init: --find_links is for a launcher", hint="add --launcher")
    wanted = files.workspace_files(_name(arguments.workspace, root), package) if is_new else []
    wanted += [files.recipe(arguments.ci, package)] if arguments.ci else []
    links = _links(arguments.find_links, root) if needs_launcher else []
    _check(root, package, [*wanted, *(files.launcher("") if needs_launcher else [])])
    outside = root_of(str(root.parent))
    own: list[OwnPlugin] = []
    if needs_launcher:
        from bkrules.starter.own_plugins import own_plugins
        from bkrules.starter.pins import requirements

        own = own_plugins(root)
        wanted += files.launcher(requirements(links, str(root) if root.is_dir() else ".", own))
    kept = [file for file in wanted if os.path.lexists(root / file.path)]
    files.write(root, [file for file in wanted if file not in kept])
    _tell(root, [file for file in wanted if file not in kept], kept)
    if own:
        print(f"./{LAUNCHER} installs these plugins from their folders: {', '.join(plugin.folder for plugin in own)}")
    if is_new:
        _tell_next(root, outside, package, f"./{LAUNCHER}" if has_launcher or needs_launcher else "bk")
    return errors.SUCCESS


def _package(text: str) -> str:
    """Return the package that the command line names. Raises UsageError."""
    try:
        label = parse_label(f"//{text.removeprefix('//')}:x")
    except LabelError:
        label = None
    if label is None or not label.package or label.package.startswith("."):
        hint = "name a folder below the workspace, as in tests/images"
        raise UsageError("package", f"bk init: --package: {text!r} cannot be a package", hint=hint)
    return label.package


def _name(wanted: str | None, root: Path) -> str:
    """Return the name of the workspace: by default, that of its folder with _ in place of what no name has. Raises UsageError."""
    name = re.sub(r"\W+", "_", root.name, flags=re.ASCII).strip("_") if wanted is None else wanted
    if not is_module(name) or name == TOOLS:
        why = f"the name of {root}" if wanted is None else "--name"
        hint = "letters, digits and _ make a name, and no digit begins it:  --name=NAME"
        raise UsageError("name", f"bk init: {why}: {name!r} cannot be the name of a workspace", hint=hint)
    return name


def _links(places: Sequence[str], root: Path) -> list[str]:
    """Return the places of wheels as a file of the workspace names them. Raises UsageError for what other machines cannot have."""
    found = []
    for place in places:
        if re.match(r"https?://", place):
            found.append(place)
            continue
        folder = Path(os.path.abspath(place))
        if not folder.is_dir():
            raise UsageError("find-links", f"bk init: --find_links: {place} is not a folder", hint="or name a URL")
        if not folder.is_relative_to(root):
            what = f"bk init: --find_links: {folder} is outside of {root}, so other machines have no such folder"
            raise UsageError("find-links", what, hint="copy it into the repository, or name a URL")
        found.append(f"./{folder.relative_to(root)}")
    return found


def _check(root: Path, package: str, wanted: Sequence[File]) -> None:
    """Raise UsageError when a file is there that bk would have to write."""
    there = [file.path for file in wanted if file.path not in KEPT and os.path.lexists(root / file.path)]
    if there:
        hint = "nothing was written; move it away" if len(there) == 1 else "nothing was written; move them away"
        if any(path.startswith(f"{package}/") for path in there):
            hint += ", or choose another package with --package=PACKAGE"
        raise UsageError("exists", f"bk init: {root} has {' and '.join(there)} already", hint=hint)


def _tell(root: Path, written: Sequence[File], kept: Sequence[File]) -> None:
    for file in written:
        print(f"wrote {file.path}")
    for file in kept:
        print(f"{file.path} was there, and stays as it is", end="")
        missing = files.lines_missing(root / file.path, file.text) if file.path == ".gitignore" else []
        print(f"; add to it:  {'  '.join(missing)}" if missing else "")


def _tell_next(root: Path, outside: str | None, package: str, bk: str) -> None:
    """Print what to do next, and what is in the way of that."""
    from bkrules.analysis import own_hooks
    from bkrules.loading.modules import installed_modules
    from bkrules.loading.plugins import load_plugins
    from bkrules.plugin import ask
    from bkrules.plugin.host import probe
    from bkrules.sandbox.trial import tried

    if outside is not None:
        print(f"note: {outside} is a workspace too; from now on, {root} is not part of it")
    if any((root / name).exists() for name in PYTEST):
        print(
            f"note: pytest on the whole repository collects {package}/test_hello.py too, and its test needs --bk-worker=all"
        )
    if TOOLS not in installed_modules():
        print(f"warning: the module {TOOLS} is not installed:  pip install bk-tools", file=sys.stderr)
    plugins = load_plugins(str(root))
    if not plugins.workers:
        print("warning: no worker is installed:  pip install bk-worker-oci", file=sys.stderr)
    host = tried(probe())
    for name, kind in sorted(plugins.workers.items()):
        for lack in own_hooks.lacks(plugins, ask.default(kind), host):
            print(f"warning: the worker {name} cannot run here: {lack}", file=sys.stderr)
    print(f"Run the test on each installed worker, {', '.join(sorted(plugins.workers)) or 'as soon as there is one'}:")
    there = os.path.relpath(root)
    print(f"  {'' if there == '.' else f'cd {there} && '}{bk} test //{package}:hello_matrix")
