"""Keys that are broken on purpose: `python tests/mutations.py PYTEST-ARGUMENTS` runs pytest with each of them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import one_cell  # noqa: F401 - what the tests import, before any fork
import pytest

from bkrules.analysis import test_files
from bkrules.analysis.matrix import imported_files
from bkrules.execution import executor
from bkrules.model.action import Action, Key, Node, key_of, parameters

Inputs = Mapping[str, Node]
Change = Callable[[Action, Inputs], tuple[Action, Inputs]]


def _changed(change: Change) -> Callable[[], None]:
    """Makes every key that of what `change` leaves of an action."""

    def apply() -> None:
        true_key = key_of

        def broken(one: Action, inputs: Inputs) -> Key:
            return true_key(*change(one, inputs))

        setattr(executor, "key_of", broken)  # noqa: B010 - a name that the module only imports

    return apply


def _without(*starts: str) -> Callable[[], None]:
    def change(one: Action, inputs: Inputs) -> tuple[Action, Inputs]:
        return one, {name: node for name, node in inputs.items() if not name.startswith(starts)}

    return _changed(change)


def _without_values_of_axes(one: Action, inputs: Inputs) -> tuple[Action, Inputs]:
    told = {**json.loads(one.arguments[-1]), "axes": {}}
    return replace(one, arguments=(*one.arguments[:-1], parameters(told))), inputs


def _without_limits(one: Action, inputs: Inputs) -> tuple[Action, Inputs]:
    told = {**json.loads(one.arguments[-1]), "limits": {}}
    return replace(one, arguments=(*one.arguments[:-1], parameters(told))), inputs


def _without_property(*starts: str) -> Callable[[], None]:
    def change(one: Action, inputs: Inputs) -> tuple[Action, Inputs]:
        return replace(one, platform=tuple(pair for pair in one.platform if not pair[0].startswith(starts))), inputs

    return _changed(change)


def _direct_imports_alone() -> None:
    every = imported_files

    def broken(source: str, path: str, roots: Sequence[str], exists: Callable[[str], bool]) -> Iterator[str]:
        return every(source, path, roots, exists) if "test_" in path else iter(())

    setattr(test_files, "imported_files", broken)  # noqa: B010


MUTATIONS: dict[str, Callable[[], None]] = {
    "nothing": lambda: None,
    "environment": _changed(lambda one, inputs: (replace(one, environment=()), inputs)),
    "platform": _changed(
        lambda one, inputs: (
            replace(one, platform=tuple(pair for pair in one.platform if pair[0].startswith("kernel-"))),
            inputs,
        )
    ),
    "kernel": _without_property("kernel-release"),
    "security modules": _without_property("kernel-lsm"),
    "cgroup mode": _without_property("kernel-cgroup"),
    "binary formats": _without_property("kernel-binfmt-"),
    "limits": _changed(_without_limits),
    "registry's configuration": _without("registry/"),
    "binds": _without("bkrules/runners/"),
    "storage tree": _without("bkrules/images/"),
    "code in cells": _without("bkrules/cell/"),
    "timeout": _changed(lambda one, inputs: (replace(one, timeout=0), inputs)),
    "toolchain digest": _without("tools/"),
    "configuration": _without("config/"),
    "plugin's helper": _without("plugin/near_helper"),
    "plugin's word": _without("plugin/cache_key"),
    "packages": _without("python/"),
    "axis value": _changed(_without_values_of_axes),
    "transitive import": _direct_imports_alone,
}


def main(arguments: Sequence[str]) -> None:
    """Run pytest once for each mutation, in a fork of this process, which has imported bk, and print the exit codes."""
    for name, mutate in MUTATIONS.items():
        print(f"mutation: {name}", flush=True)
        child = os.fork()
        if child == 0:
            mutate()
            # What is broken is imported already, which pytest would warn of.
            code = pytest.main(["-W", "ignore::pytest.PytestAssertRewriteWarning", *arguments])
            sys.stdout.flush()
            os._exit(code)
        print(f"exit code: {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
