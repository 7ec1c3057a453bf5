"""Keys that are broken on purpose: `python tests/mutations.py all|caught PYTEST-ARGUMENTS` runs pytest with each of them.

With `caught`, pytest runs the tests alone that are to fail with it.
"""

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
from bkrules.model.shared_nodes import SharedNodes

Inputs = Mapping[str, Node]
Change = Callable[[Action, Inputs], tuple[Action, Inputs]]


def _changed(change: Change) -> Callable[[], None]:
    """Makes every key that of what `change` leaves of an action."""

    def apply() -> None:
        true_key, true_shared_key = key_of, SharedNodes.key

        def broken(one: Action, inputs: Inputs) -> Key:
            return true_key(*change(one, inputs))

        def broken_shared(shared: SharedNodes, one: Action, own: Inputs) -> Key:
            whole = {**shared.nodes, **own}
            assert true_shared_key(shared, one, own) == true_key(one, whole)
            return broken(one, whole)

        assert vars(executor)["key_of"] is key_of
        setattr(executor, "key_of", broken)  # noqa: B010 - a name that the module only imports
        setattr(SharedNodes, "key", broken_shared)  # noqa: B010 - a method

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


CAUGHT_BY: dict[str, set[str]] = {
    "environment": {"test_the_environment"},
    "platform": {"test_the_platform"},
    "kernel": {"test_the_series_of_the_kernel", "test_how_much_of_the_kernel_is_an_option"},
    "security modules": {"test_security_modules"},
    "cgroup mode": {"test_how_cgroups_are_mounted"},
    "binary formats": {"test_binary_formats"},
    "limits": {"test_the_limits_of_a_cell"},
    "registry's configuration": {"test_the_configuration_of_the_registry"},
    "binds": {"test_the_code_around_cells"},
    "storage tree": {"test_the_code_of_the_mirrors_storage_tree"},
    "code in cells": {"test_the_code_inside_of_cells"},
    "timeout": {"test_the_timeout"},
    "toolchain digest": {"test_the_digest_of_each_tool"},
    "configuration": {"test_the_configuration_of_the_daemons"},
    "plugin's helper": {"test_a_helper_of_a_plugin"},
    "plugin's word": {"test_the_plugins_own_word"},
    "packages": {"test_the_installed_packages"},
    "axis value": {"test_the_value_on_an_axis"},
    "transitive import": {"test_a_transitive_import"},
    "nothing": set(),
}
"""The tests that fail with each mutation."""


def main(which: str, *arguments: str) -> None:
    """Run pytest once for each mutation, in a fork of this process, which has imported bk, and print the exit codes."""
    for name, mutate in MUTATIONS.items():
        print(f"mutation: {name}", flush=True)
        tests = CAUGHT_BY[name] or set().union(*CAUGHT_BY.values())
        chosen = ["-k", " or ".join(sorted(tests))] if which == "caught" else []
        child = os.fork()
        if child == 0:
            mutate()
            # What is broken is imported already, which pytest would warn of.
            code = pytest.main(["-W", "ignore::pytest.PytestAssertRewriteWarning", *chosen, *arguments])
            sys.stdout.flush()
            os._exit(code)
        print(f"exit code: {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
