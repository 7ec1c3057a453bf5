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
    "REMOTE_FAILED": 34,
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


def test_a_long_line_of_an_error_loses_its_middle() -> None:
    error = BkError("slug", f"'words' was {'a' * 9_000}!", hint=f"first\n{'b' * 4_000}\n{'c' * 4_001}")
    message, *hints = str(error).splitlines()
    assert message == f"'words' was {'a' * 2_988} ... 5,213 characters ... {'a' * 799}!"
    assert hints == ["  first", f"  {'b' * 4_000}", f"  {'c' * 3_000} ... 201 characters ... {'c' * 800}"]
    assert (error.message, error.args) == (message, (message,))


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
def test_the_state_of_a_machine_is_its_lack_and_has_a_remedy(
    number: int, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errors, "PLACES", {errors.CACHE: "/cache"})
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


@pytest.mark.parametrize(
    ("path", "number", "remedy"),
    [
        ("/cache/cas/x", errno.ENOSPC, "make room there, as with `bk cache gc --max_size=2G`, or choose another place"),
        (
            "/w/bk-out/p",
            errno.ENOSPC,
            "make room there, where bk writes outputs, logs and reports, or make bk-out a link",
        ),
        ("/else", errno.ENOSPC, "make room there"),
        ("/cache", errno.EROFS, "make it writable, or choose another place with --disk_cache"),
        ("/w/bk-out", errno.EROFS, "make it writable"),
        ("/cached", errno.EISDIR, "something else is in the place of a file or folder of bk: remove it"),
        ("/cache/cas", errno.EISDIR, "remove it, or choose another place with --disk_cache"),
        ("/cache", errno.ENOENT, "make the folders above it, or choose another place with --disk_cache"),
    ],
)
def test_the_remedy_is_that_of_the_folder(path: str, number: int, remedy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "PLACES", {errors.CACHE: "/cache", errors.OUTPUT: "/w/bk-out"})

    lack = of_machine(OSError(number, os.strerror(number), path))

    assert lack is not None
    assert remedy in lack.hint
    if path == "/else":
        assert lack.hint == remedy


def test_of_two_paths_the_new_one_takes_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "PLACES", {errors.CACHE: "/cache", errors.OUTPUT: "/w/bk-out"})

    lack = of_machine(OSError(errno.ENOSPC, "No space left on device", "/cache/cas/x", None, "/w/bk-out/x"))

    assert lack is not None
    assert lack.message.startswith("/w/bk-out/x: ")
    assert "bk-out" in lack.hint


def test_a_file_that_is_missing_elsewhere_is_no_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "PLACES", {errors.CACHE: "/cache"})
    assert of_machine(OSError(errno.ENOENT, "No such file or directory", "/cache/cas/x")) is None
    assert of_machine(OSError(errno.ENOENT, "No such file or directory")) is None
