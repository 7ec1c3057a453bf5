"""A key without something that belongs into it makes a test fail, and it is the test of that very thing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from mutations import MUTATIONS

CAUGHT_BY = {
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
    "nothing": set[str](),
}


@pytest.mark.soak
def test_a_broken_key_is_caught(repository: Path) -> None:
    options = ("-q", "-rf", "-p", "no:cacheprovider", "tests/test_keys.py")
    command = [sys.executable, "tests/mutations.py", *options]

    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)

    outputs = dict(part.split("\n", 1) for part in done.stdout.split("mutation: ")[1:])
    failed = {
        name: set(re.findall(r"^FAILED tests/test_keys\.py::(\w+)", text, re.MULTILINE))
        for name, text in outputs.items()
    }
    codes = {name: int(text.rpartition("exit code: ")[2]) for name, text in outputs.items()}
    assert {*failed} == {*MUTATIONS}, done.stdout + done.stderr
    assert failed == CAUGHT_BY, done.stdout + done.stderr
    assert codes == {name: 1 if caught else 0 for name, caught in CAUGHT_BY.items()}, done.stdout + done.stderr
