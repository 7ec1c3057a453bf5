"""`bk plugin list`, `check` and `new`."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bkrules import errors
from bkrules.commands.build_arguments import add_execution, options_of
from bkrules.commands.own_files import add_modules
from bkrules.commands.parser import command, nothing
from bkrules.errors import UsageError

if TYPE_CHECKING:
    from bkrules.commands.parser import Commands
    from bkrules.model.label import Label
    from bkrules.model.rule import Target

USUAL = "docker.io/library/busybox:latest"


def add(commands: Commands) -> None:
    """Add the commands of this module to the parser."""
    plugin = command(commands, "plugin", _plugin, "manage plugins: list, check, new")
    plugin.add_argument(
        "what",
        choices=("list", "check", "new"),
        help="list the installed plugins; check the workers of a plugin; create a plugin",
    )
    plugin.add_argument(
        "names", nargs="*", metavar="NAME", help="for check: patterns of workers; for new: the worker, as in my_worker"
    )
    plugin.add_argument("--json", action="store_true", help="for list: print JSON")
    plugin.add_argument("--folder", default="plugins", help="for new: where its folder is made (default: %(default)s)")
    plugin.add_argument(
        "--mirror",
        default="",
        metavar="LABEL",
        help="for check: an image_mirror (default: the one in the worker's package)",
    )
    plugin.add_argument("--image", metavar="REFERENCE", help=f"for check: one of its images, with a shell ({USUAL})")
    add_execution(plugin)
    add_modules(plugin)


def _plugin(arguments: argparse.Namespace) -> int:
    what, names = arguments.what, arguments.names
    if (what == "list" and names) or (what == "check" and not names) or (what == "new" and len(names) != 1):
        wants = {"list": "no name", "check": "patterns of workers", "new": "one name"}[what]
        raise UsageError("usage", f"plugin {what}: it takes {wants}", hint="see `bk plugin --help`")
    commands = {"list": _list, "check": _check, "new": _new}
    return commands[what](arguments)


def _list(arguments: argparse.Namespace) -> int:
    from bkrules.loading.plugins import load_plugins
    from bkrules.loading.root import root_of

    plugins = load_plugins(root_of("."))
    documents = [
        {
            "distribution": plugin.title,
            "entry_point": plugin.entry_point.name,
            "module": plugin.entry_point.value,
            "origin": plugin.origin,
            "hooks": list(plugin.hooks),
            "worker_hooks": list(plugin.worker_hooks),
            "workers": sorted(worker.name for worker in plugin.workers),
            "error": str(plugin.error or ""),
        }
        for plugin in plugins.installed
    ]
    faults = list(plugins.conflicts.values())
    if arguments.json:
        print(json.dumps(documents, indent=1))
    else:
        for document in documents:
            print(f"{document['distribution']}: {', '.join(document['workers']) or 'no workers'}")
            hooks = [*document["hooks"], *(f"{name} (its workers)" for name in document["worker_hooks"])]
            print(f"  from {document['origin'] or document['module']}; hooks: {', '.join(hooks) or 'none'}")
            if document["error"]:
                print("  " + f"error: {document['error']}".replace("\n", "\n  "))
    for error in faults:
        print(f"error: {error}", file=sys.stderr)
    broken = any(plugin.error.reason == "broken-plugin" for plugin in plugins.installed if plugin.error)
    return errors.BUILD_FAILED if broken or faults else errors.SUCCESS


def _check(arguments: argparse.Namespace) -> int:
    from bkrules.build.analysis import analyze_targets, open_workspace, package_of
    from bkrules.build.execute import execute
    from bkrules.commands.targets import mirror_of
    from bkrules.conformance.checks import CHECKS, of_cells, violations, without_fallback
    from bkrules.conformance.declare import conformance
    from bkrules.model.label import parse_pattern
    from bkrules.model.providers import WorkerInfo
    from bkrules.report.summary import summarize

    options = options_of(arguments)
    patterns = [text.strip() for text in arguments.names]
    workspace = open_workspace(".")
    package = package_of(workspace, ".")
    named = workspace.match([parse_pattern(text, package) for text in patterns])
    workers = [target for target in named if target.rule.name == "worker"]
    if not workers:
        raise nothing(f"no worker among {' '.join(patterns)}", "see `bk query 'kind(worker, //...)'`")
    mirror = mirror_of(workspace, workers[0], arguments.mirror)
    target = conformance([worker.label for worker in workers], mirror.label, _image(mirror, arguments.image))
    analysis = analyze_targets(workspace, [target])
    wrong = 0
    for label in (worker.label for worker in workers):
        (info,) = analysis.actions.providers[label]
        assert isinstance(info, WorkerInfo)
        print(f"{label}: {info.id}, by the plugin {info.worker.name}")
        for promise, check in CHECKS:
            problem = violations(info.worker, check)
            wrong += bool(problem)
            print(f"  FAILED  {promise}: {problem}" if problem else f"  ok      {promise}", flush=True)
    result = execute(analysis, options)
    result = replace(result, results=tuple(map(without_fallback, result.results)))
    print(summarize(result, analysis.out))
    for problem in of_cells(result.cells, analysis.out / target.label.name):
        wrong += 1
        print(f"FAILED: {problem}")
    if wrong and result.exit_code in (errors.SUCCESS, errors.MACHINE_LACKS):
        return errors.TESTS_FAILED
    return result.exit_code


def _image(mirror: Target, wanted: str | None) -> str:
    images: dict[str, Label] = mirror.attributes["images"]
    if wanted is None:
        return USUAL if USUAL in images else next(iter(images))
    if wanted not in images:
        raise UsageError("image", f"plugin check: {mirror.label} has no {wanted}", hint=f"it has: {', '.join(images)}")
    return wanted


def _new(arguments: argparse.Namespace) -> int:
    from bkrules.commands.skeleton import write

    folder = write(arguments.names[0], Path(arguments.folder))
    if folder.parent.resolve() == Path(sys.prefix, "root", "plugins").resolve():  # of the launcher of `bk init`
        print(f"{folder} has a plugin with one worker, {folder.name}; ./bk installs it when it runs next. Check it:")
        print(f"  ./bk plugin check //{folder}:{folder.name}")
        return errors.SUCCESS
    print(f"{folder} has a plugin with one worker, {folder.name}; install it and check it:")
    print(f"  pip install --editable {folder}\n  bk plugin check //{folder}:{folder.name}")
    return errors.SUCCESS
