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
from bkrules.commands.parser import patterns_of
from bkrules.commands.remote_arguments import remote_of
from bkrules.errors import MachineLacks, UsageError


def push(arguments: argparse.Namespace) -> int:
    """Send the results of targets, and print how many. Runs none of the actions that make their outputs.

    Raises UsageError, and MachineLacks for the first fault of the remote cache.
    """
    options = remote_of(arguments)
    if options is None or not arguments.patterns:
        hint = "for example bk cache push //... --remote_cache=https://cache.example.com/bk"
        raise UsageError("usage", "bk cache push needs targets and --remote_cache", hint=hint)
    if not options.upload:
        raise UsageError("usage", "bk cache push sends results, but --remote_upload_local_results=no forbids that")
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
        raise MachineLacks("remote-cache", fault)
    absent = len(wanted.keys() | early_actions.results.keys()) - held
    counts = {"sent": remote.sent, "there": held - remote.sent, "absent": absent}
    text = "{sent} results sent, {there} were in the remote cache already, {absent} are not in the disk cache"
    print(json.dumps(counts) if arguments.json else text.format(**counts))
    return errors.SUCCESS


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
