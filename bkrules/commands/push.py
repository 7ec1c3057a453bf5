"""`bk cache push`: sends results of the disk cache to a remote cache. A build sends only the results of what it runs."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace

from bkrules import errors
from bkrules.build import early_actions
from bkrules.build.analysis import analyze_patterns
from bkrules.build.execute import Execution
from bkrules.build.request import Options
from bkrules.cache.action_cache import ActionCache
from bkrules.cache.maintenance import in_use
from bkrules.cache.remote import Remote
from bkrules.cache.remote_options import RemoteOptions
from bkrules.commands.parser import patterns_of
from bkrules.commands.remote_arguments import remote_of
from bkrules.errors import RemoteFailed, UsageError
from bkrules.model.action import Action
from bkrules.model.digest import Digest


def push(arguments: argparse.Namespace) -> int:
    """Send the results of targets, and print how many. Runs none of the actions that make their outputs.

    Raises UsageError, and RemoteFailed for the first fault of the remote cache.
    """
    options = _options(arguments)
    folder = os.path.abspath(arguments.disk_cache)
    analysis = analyze_patterns(".", patterns_of(arguments))
    with in_use(folder):
        execution = Execution(analysis, Options(1, folder), _say, show=False)
        remote = Remote(replace(options, required=True), execution.cas, _say)
        cache = ActionCache(f"{folder}/ac", execution.cas, remote)
        wanted = analysis.wanted()
        known = {name: execution.look_up(action).result for name, action in wanted.items()}
        results = {**early_actions.results, **known}.values()
        keys = [
            result.key.digest for result in results if result is not None and result.cached and result.key is not None
        ]
        held = sum(map(cache.push, keys))
        fault = remote.flush()
        execution.digests.save()
    if fault:
        raise RemoteFailed("remote-cache", fault)
    absent = len(wanted.keys() | early_actions.results.keys()) - held
    counts = {"sent": remote.sent, "there": held - remote.sent, "absent": absent}
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
    analysis = analyze_patterns(".", patterns_of(arguments))
    sent: list[tuple[Action, Digest]] = []
    waiting: list[Action] = []
    with in_use(folder):
        execution = Execution(analysis, Options(1, folder, remote=options), _say, show=False)
        assert execution.remote is not None
        for action in analysis.wanted().values():
            known = execution.look_up(action)
            if known.result is not None:
                continue
            if known.key is None or not action.made_in:
                waiting.append(action)
                continue
            inputs = execution.executor.inputs(action)
            sent.append((action, send(action, inputs, execution.cas, execution.remote)))
        execution.digests.save()
    if arguments.json:
        document = [
            {"digest": f"{key.hash}/{key.size}", "label": str(action.label), "mnemonic": action.mnemonic}
            for action, key in sent
        ]
        print(json.dumps({"actions": document, "waiting": [action.id for action in waiting]}, indent=1))
        return errors.SUCCESS
    for action, key in sent:
        print(f"{key.hash}/{key.size} {action.label}")
    left = f"; {len(waiting)} need a result of another one, or cannot run elsewhere" if waiting else ""
    print(f"{len(sent)} actions sent{left}", file=sys.stderr)
    return errors.SUCCESS


def _options(arguments: argparse.Namespace) -> RemoteOptions:
    """Return the remote cache to send to. Raises UsageError."""
    options = remote_of(arguments)
    if options is None or not arguments.patterns:
        hint = "for example bk cache push //... --remote_cache=https://cache.example.com/bk"
        raise UsageError("usage", "bk cache push needs targets and --remote_cache", hint=hint)
    if not options.upload:
        raise UsageError("usage", "bk cache push sends results, but --remote_upload_local_results=no forbids that")
    return options


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
