from __future__ import annotations

import errno
import os
import re

import pytest

from bkrules import errors
from bkrules.errors import ActionFailed, BkError, did_you_mean, of_machine

CODES = {
    "SUCCESS": 0,
    "BUILD_FAILED": 1,
    "USAGE": 2,
    "TESTS_FAILED": 3,
    "NOTHING_RAN": 4,
    "INTERRUPTED": 8,
    "MACHINE_LACKS": 36,
    "BUG": 37,
}


def test_the_tree_in_the_docstring_is_the_tree_of_classes() -> None:
    drawn = re.findall(r"^ +[|`]- (\w+) +(\d+) ", errors.__doc__ or "", re.MULTILINE)
    classes = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, BkError)]
    assert {name: int(code) for name, code in drawn} == {
        one.__name__: one.exit_code for one in classes if one is not BkError
    }
    assert all(BkError in one.__bases__ for one in classes if one is not BkError)


def test_exit_codes_are_bazels() -> None:
    assert {name: getattr(errors, name) for name in CODES} == CODES
    assert "exit code 37" in (errors.__doc__ or "")


def test_an_error_prints_what_then_where_then_what_to_do() -> None:
    error = BkError("slug", "//a:b: 'size' must be positive", where="a/BUILD.py:3", hint="write 1\nor 2")
    assert str(error) == "//a:b: 'size' must be positive\n  a/BUILD.py:3\n  write 1\n  or 2"


def test_an_error_without_a_place_or_a_hint_is_one_line() -> None:
    assert str(BkError("slug", "no")) == "no"


def test_a_failed_action_keeps_its_log_out_of_its_message() -> None:
    error = ActionFailed("slug", "it failed", log="line 1\nline 2")
    assert (str(error), error.log, error.reason) == ("it failed", "line 1\nline 2", "slug")


@pytest.mark.parametrize(
    ("word", "known", "hint"),
    [
        ("imag", ["worker", "image"], "did you mean 'image'? known: image, worker"),
        ("zzz", ["worker", "image"], "known: image, worker"),
        ("image", [], "known: none"),
    ],
)
def test_did_you_mean(word: str, known: list[str], hint: str) -> None:
    assert did_you_mean(word, known) == hint


def test_did_you_mean_says_what_it_lists() -> None:
    assert did_you_mean("oc", iter(["oci"]), "installed") == "did you mean 'oci'? installed: oci"


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "--disk_cache"),
        (errno.EDQUOT, "--disk_cache"),
        (errno.EROFS, "writable"),
        (errno.EACCES, "writable"),
        (errno.EMFILE, "ulimit -n"),
        (errno.ENFILE, "fs.file-max"),
        (errno.EAGAIN, "--jobs"),
        (errno.ENOMEM, "--jobs"),
        (errno.EIO, "kernel's log"),
    ],
)
def test_the_state_of_a_machine_is_its_lack_and_has_a_remedy(number: int, remedy: str) -> None:
    lack = of_machine(OSError(number, os.strerror(number), "/cache/cas"))

    assert lack is not None
    assert (lack.exit_code, lack.reason) == (36, "machine")
    assert lack.message == f"/cache/cas: {os.strerror(number)}"
    assert remedy in lack.hint


@pytest.mark.parametrize(
    "error",
    [FileNotFoundError(errno.ENOENT, "gone", "/x"), OSError(errno.EBADF, "bad"), OSError("no number"), OSError()],
)
def test_other_errors_of_the_system_are_bugs(error: OSError) -> None:
    assert of_machine(error) is None


def test_a_lack_without_a_file_names_none() -> None:
    lack = of_machine(OSError(errno.EMFILE, "Too many open files"))

    assert str(lack) == "Too many open files\n  allow more open files:  ulimit -n 4096"
