"""`bk cache push`, `pack` and `unpack`: results of the disk cache go to a remote cache or into a file, or come from files.

A build sends only the results of what it runs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bkrules import errors
from bkrules.build import early_actions
from bkrules.build.analysis import Analysis, analyze_patterns, selected
from bkrules.build.execute import Execution
from bkrules.build.request import Options
from bkrules.cache import pack as packs
from bkrules.cache.action_cache import ActionCache
from bkrules.cache.cas import Cas
from bkrules.cache.file_digests import FileDigests
from bkrules.cache.maintenance import in_use, shown
from bkrules.cache.remote import Remote
from bkrules.cache.remote_options import RemoteOptions
from bkrules.commands.build_arguments import runs_of
from bkrules.commands.harness import overrides_of, selection_of
from bkrules.commands.parser import patterns_of
from bkrules.commands.remote_arguments import check_upload, remote_of
from bkrules.errors import MachineLacks, RemoteFailed, UsageError
from bkrules.model.action import Action
from bkrules.model.digest import Digest

_VERIFY = "`bk cache verify` removes what is damaged"


def push(arguments: argparse.Namespace) -> int:
    """Send the results of targets, and print how many. Runs none of the actions that make their outputs.

    Raises UsageError, and RemoteFailed for the first fault of the remote cache.
    """
    options = _options(arguments)
    folder = os.path.abspath(arguments.disk_cache)
    with in_use(folder):
        found = _found(arguments, folder)
        remote = Remote(replace(options, required=True), found.cas, _say)
        cache = ActionCache(f"{folder}/ac", found.cas, remote)
        held = sum(map(cache.push, found.keys))
        fault = remote.flush()
    if fault:
        raise RemoteFailed("remote-cache", fault)
    counts = {"sent": remote.sent, "there": held - remote.sent, "absent": found.wanted - held}
    text = "{sent} results sent, {there} were in the remote cache already, {absent} are not in the disk cache"
    print(json.dumps(counts) if arguments.json else text.format(**counts))
    return errors.SUCCESS


def push_actions(arguments: argparse.Namespace) -> int:
    """Send the actions of targets that have no result, with their inputs, and print their digests for `bk run-action`.

    An action is sent when an engine can run it, and all that it reads has been made. Raises UsageError and RemoteFailed.
    """
    from bkrules.execution.portable import send

    options = _options(arguments)
    folder = os.path.abspath(arguments.disk_cache)
    analysis = _analysis(arguments)
    sent: list[tuple[Action, Digest]] = []
    waiting: list[Action] = []
    with in_use(folder):
        execution = Execution(analysis, Options(1, folder, remote=options), _say, show=False)
        assert execution.remote is not None
        for action in analysis.wanted().values():
            known = execution.look_up(action)
            if known.result is not None:
                continue
            form = None if known.key is None else execution.executor.portable(action)
            if form is None:
                waiting.append(action)
            else:
                sent.append((action, send(*form, execution.cas, execution.remote)))
        execution.digests.save()
    if arguments.json:
        document = [
            {"digest": f"{key.hash}/{key.size}", "label": _label(action), "mnemonic": action.mnemonic}
            for action, key in sent
        ]
        print(json.dumps({"actions": document, "waiting": [action.id for action in waiting]}, indent=1))
        return errors.SUCCESS
    for action, key in sent:
        print(f"{key.hash}/{key.size} {_label(action)}")
    print(f"{len(sent)} actions sent{_left(waiting)}", file=sys.stderr)
    return errors.SUCCESS


def _left(waiting: Sequence[Action]) -> str:
    """Return what to do for the actions that were not sent; empty for none."""
    if not waiting:
        return ""
    names = ", ".join(sorted({action.mnemonic for action in waiting}))
    return (
        f"; not sent: {len(waiting)} ({names}), which need a result of another one, or cannot run elsewhere"
        "\n  build the tools and images here, or run what was sent; then push again"
    )


def _label(action: Action) -> str:
    return action.cell.label if action.cell else str(action.label)


def _options(arguments: argparse.Namespace) -> RemoteOptions:
    """Return the remote cache to send to. Raises UsageError."""
    options = remote_of(arguments)
    if options is None or not arguments.patterns:
        hint = "for example bk cache push //... --remote_cache=https://cache.example.com/bk"
        raise UsageError("usage", "bk cache push needs targets and --remote_cache", hint=hint)
    check_upload(options, "bk cache push sends results")
    return options


def pack(arguments: argparse.Namespace) -> int:
    """Write the results of targets into a file, and print how many. Runs none of the actions that make their outputs.

    Raises UsageError, also when the file cannot be written.
    """
    if not arguments.patterns or not arguments.out:
        hint = "for example bk cache pack //... --out=results.pack"
        raise UsageError("usage", "bk cache pack needs targets and --out", hint=hint)
    folder = os.path.abspath(arguments.disk_cache)
    with in_use(folder):
        found = _found(arguments, folder)
        try:
            counts = packs.write(arguments.out, found.hashes, ActionCache(f"{folder}/ac", found.cas))
        except OSError as error:
            message = f"--out: {arguments.out} cannot be written: {error.strerror}"
            raise UsageError("usage", message, hint="name a file in a folder where you may write") from error
        except ValueError as error:
            raise MachineLacks("damaged-cache", f"the disk cache is damaged: {error}", hint=_VERIFY) from error
    _print(arguments, counts, {"absent": found.wanted - counts.results}, "packed; {absent} are not in the disk cache")
    return errors.SUCCESS


def unpack(arguments: argparse.Namespace) -> int:
    """Put the results of packs into the disk cache, and print how many are new there. Raises UsageError, and OSError."""
    if not arguments.patterns:
        raise UsageError("usage", "bk cache unpack needs packs", hint="for example bk cache unpack results.pack")
    folder = os.path.abspath(arguments.disk_cache)
    with in_use(folder):
        cas = Cas(f"{folder}/cas", FileDigests(""))
        counts = packs.unpack(arguments.patterns, ActionCache(f"{folder}/ac", cas))
    _print(arguments, counts, {}, "new in the disk cache")
    return errors.SUCCESS


def _print(arguments: argparse.Namespace, counts: packs.Counts, more: dict[str, int], text: str) -> None:
    number = f"{counts.results} results and {counts.blobs} blobs, {shown(counts.size)}, "
    print(json.dumps({**vars(counts), **more}) if arguments.json else number + text.format(**more))


@dataclass(frozen=True)
class _Found:
    """The keys of the results that the disk cache has, of `wanted` actions."""

    cas: Cas
    keys: list[Digest]
    wanted: int

    @property
    def hashes(self) -> list[str]:
        """The keys, without the sizes of the actions."""
        return [key.hash for key in self.keys]


def _analysis(arguments: argparse.Namespace) -> Analysis:
    """Return the selected targets of the command line. Raises BkError."""
    analysis = analyze_patterns(".", patterns_of(arguments), runs=runs_of(arguments), overrides=overrides_of(arguments))
    return selected(analysis, selection_of(arguments))


def _found(arguments: argparse.Namespace, folder: str) -> _Found:
    """Look up the selected actions of the command line. Raises BkError."""
    analysis = _analysis(arguments)
    execution = Execution(analysis, Options(1, folder, cache_test_results="yes"), _say, show=False)
    wanted = analysis.wanted()
    known = {name: execution.look_up(action).result for name, action in wanted.items()}
    execution.digests.save()
    results = {**early_actions.results, **known}.values()
    keys = [result.key.digest for result in results if result is not None and result.cached and result.key is not None]
    return _Found(execution.cas, keys, len(wanted.keys() | early_actions.results.keys()))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
