"""Variables of the environment that look like those that bk reads, and have no effect."""

from __future__ import annotations

import inspect
import re
from dataclasses import replace

import pytest
from spaces import Space

from bkrules.commands import harness, remote_arguments
from bkrules.commands.help import TOPICS
from bkrules.commands.variables import KNOWN

WARNING = "warning: bk does not read these variables of the environment\n"


def test_the_known_variables_are_those_of_the_help() -> None:
    constants = {
        value for value in vars(harness).values() if isinstance(value, str) and value in inspect.getsource(harness)
    }
    read = {value for value in constants if re.fullmatch(r"[A-Z]+_[A-Z_]+", value)} | {remote_arguments.HEADERS}
    assert read | {"BK_SYSTEM_PACKAGES"} == set(KNOWN)
    assert [name for name in KNOWN if name not in TOPICS["environment"][1]] == []


@pytest.mark.parametrize(
    ("variables", "lines"),
    [
        ({"BK_REMOTE_HEADR": "A=secret"}, "  BK_REMOTE_HEADR: did you mean BK_REMOTE_HEADER?\n"),
        ({"BK_REMOTE_HEADERS": "A=secret"}, "  BK_REMOTE_HEADERS: did you mean BK_REMOTE_HEADER?\n"),
        (
            {"BUILDKIT_TEST_ENABLE_FEATURE": "cdi"},
            "  BUILDKIT_TEST_ENABLE_FEATURE: did you mean BUILDKIT_TEST_ENABLE_FEATURES?\n",
        ),
        (
            {"BK_JOBS": "1", "BK_SYSTEM_PACKAGE": "no"},
            "  BK_JOBS: write --jobs=VALUE on the command line, or in .bkrc\n"
            "  BK_SYSTEM_PACKAGE: did you mean BK_SYSTEM_PACKAGES?\n",
        ),
    ],
)
def test_a_variable_without_an_effect_is_a_warning_of_each_build(
    space: Space, variables: dict[str, str], lines: str
) -> None:
    space.write("p/BUILD.py", "from bkrules import image\nimage(name = 'a')\n")
    for _ in range(3):
        done = replace(space, environment=variables, later=True).bk("build", "//p:a")
        assert done.returncode == 0
        assert done.stderr.startswith(WARNING + lines)
        assert done.stderr.count("warning: ") == 1


def test_other_variables_are_no_concern_of_bk(space: Space) -> None:
    """Those of a cell around this bk, of plugins, of BuildKit, and one whose value is on the command line."""
    names = ("BK_WORKER", "BK_MIRROR", "BK_AXIS_JOBS", "BK_EXTRA_WORKER_OCI_HOST", "BK_NYDUS_HOME", "BUILDKIT_HOST")
    variables = {**dict.fromkeys(names, "x"), "BK_REMOTE_HEADER": "A=1", "BK_JOBS": "3"}
    space.write("p/BUILD.py", "from bkrules import image\nimage(name = 'a')\n")
    for option in ("-j3", "--jobs=3"):
        done = replace(space, environment=variables).bk("build", "//p:a", option)
        assert done.returncode == 0
        assert "warning" not in done.stderr
