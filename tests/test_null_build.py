"""The shortest way to an answer is taken when nothing has changed, and never when something has."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from spaces import Space

RULES = """from bkrules import filegroup, genrule, host_binary, image, workspace
workspace(name = "test")
host_binary(name = "cat")
genrule(name = "made", srcs = ["//p:text.txt"], outs = ["copy"], tools = [":cat"], cmd = ["$(location :cat)", "$<"])
image(name = "small", files = {"text": "//p:text.txt"})
"""


@pytest.fixture
def built(space: Space) -> Space:
    """A workspace whose targets are all built, and an answer that is kept."""
    space.write("WORKSPACE.py", RULES.replace("genrule(name", "# genrule(name"))
    space.write(".bkrc", "try-import %workspace%/more.rc\n")
    space.write("p/text.txt", "one\n")
    space.write("p/BUILD.py", 'from bkrules import filegroup\nfilegroup(name = "all", srcs = ["text.txt"])\n')
    space = replace(space, later=True)
    for _ in range(2):
        done = space.bk("build", "//...")
        assert done.returncode == 0, done.stderr
    assert at_once(space)
    return space


def at_once(space: Space, *arguments: str, prefix: tuple[str, ...] = ()) -> bool:
    """Build again, by the command `prefix`; whether the answer was given without loading anything."""
    command = space.command("build", *(arguments or ("//...",)))
    command = [*prefix, command[0], "-Ximporttime", *command[1:]]
    environment = {**os.environ, **space.environment}
    done = subprocess.run(command, cwd=space.root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "1 action: " in done.stdout
    return "bkrules.cli" not in done.stderr


def test_the_same_words_are_said(built: Space) -> None:
    first = built.bk("build", "//...").stdout
    built.write("bk-out/.state/answers/none", "")
    assert first.startswith("1 action: 0 ran, 1 cached\nhit local 1, hit remote 0, ran 0, skipped 0; ")
    assert first.count("\n") == 2
    assert "\0" not in first


@pytest.mark.parametrize(
    "change",
    [
        lambda space: space.write("p/text.txt", "two\n"),
        lambda space: space.write("p/BUILD.py", (space.root / "p/BUILD.py").read_text() + "\n"),
        lambda space: space.write("q/BUILD.py", ""),
        lambda space: (space.root / "bk-out/small/layout/index.json").unlink(),
        lambda space: os.utime(space.root / "p/text.txt", (2, 2)),
        lambda space: space.write(".bkrc", "build --jobs=1\n"),
        lambda space: space.write("more.rc", "build --jobs=1\n"),
        lambda space: [path.unlink() for path in (space.cache / "ac").glob("*/*")],
        lambda space: next(path for path in (space.cache / "cas").glob("*/*")).unlink(),
        lambda space: [path.write_bytes(b"garbage") for path in (space.root / "bk-out/.state/answers").iterdir()],
        lambda space: [path.write_bytes(b"") for path in (space.root / "bk-out/.state/answers").iterdir()],
        lambda space: [path.write_bytes(b"\xff" * 64) for path in (space.root / "bk-out/.state/answers").iterdir()],
    ],
)
def test_a_change_is_seen(built: Space, change: Callable[[Space], object]) -> None:
    change(built)

    assert not at_once(built)


def test_a_cache_that_others_write_to_is_looked_at_again(built: Space) -> None:
    """What came into a folder of the cache says nothing of the entries that the answer rests on; what went does."""
    entries = [*(built.cache / "ac").glob("*/*"), *(built.cache / "cas").glob("*/*")]
    for entry in entries:
        (entry.parent / "other").write_text("")
    assert at_once(built)

    next(built.cache.glob("cas/*/[0-9a-f]*")).unlink()

    assert not at_once(built)


def test_a_blob_that_is_shown_and_was_written_to_is_seen(built: Space) -> None:
    shown = next(path for path in (built.root / "bk-out/small/layout").rglob("*") if path.is_file())
    shown.chmod(0o755)
    shown.write_bytes(b"damaged")

    assert not at_once(built)


def test_what_is_asked_for_is_part_of_the_question(built: Space, tmp_path: Path) -> None:
    assert not at_once(built, "//:small")
    assert not at_once(built, "//...", "-k")
    assert not at_once(replace(built, environment={"HOME": str(tmp_path)}))
    assert not at_once(replace(built, environment={"BK_ANYTHING": "1"}))
    assert not at_once(replace(built, cache=tmp_path / "other"))
    assert not at_once(built, "//...", "--test_env=LEVEL=1")
    assert not at_once(built)  # another build has put its own outputs in their place
    assert at_once(built)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SKIP_INTEGRATION_TESTS", "1"),
        ("BUILDKIT_WORKER_RANDOM", "1"),
        ("BUILDKIT_TEST_DISABLE_FEATURES", "cdi"),
        ("BUILDKIT_INTEGRATION_SNAPSHOTTER", "native"),
        ("TEST_BUILDKITD_BINARY", "/bin/true"),
    ],
)
def test_variables_of_the_harness_are_part_of_the_question(built: Space, name: str, value: str) -> None:
    assert not at_once(replace(built, environment={name: value}))


HANDLERS = "/proc/sys/fs/binfmt_misc"
MOUNTED = ("unshare", "-m", "sh", "-c", f'mount -t binfmt_misc none {HANDLERS} && exec "$@"', "sh")


def binfmt(words: str) -> None:
    """Run a line of shell where the kernel's list of binary formats is mounted."""
    subprocess.run([*MOUNTED, "sh", "-c", words], check=True)


def test_a_change_of_the_kernel_is_seen(built: Space) -> None:
    """A binary format is registered, with the kernel's own file system. No file of the workspace changes."""
    name = f"bk-test-{os.getpid()}"

    def again() -> list[bool]:
        return [at_once(built, "//...", prefix=MOUNTED) for _ in range(2)]

    # The list lasts as long as it is mounted somewhere.
    with subprocess.Popen(
        [*MOUNTED, "sh", "-c", "echo; exec cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as keeper:
        assert keeper.stdout is not None
        keeper.stdout.readline()
        assert again() == [False, True]
        binfmt(f"echo ':{name}:M::no program begins so::/nowhere:' > {HANDLERS}/register")
        assert again() == [False, True]
        binfmt(f"echo 0 > {HANDLERS}/{name}")
        assert again() == [False, True]
        binfmt(f"echo -1 > {HANDLERS}/{name}")
        assert again() == [False, True]


@pytest.mark.parametrize("path", ["/proc/sys/user/max_user_namespaces", "/proc/filesystems"])
def test_each_thing_that_the_kernel_says_is_part_of_the_question(built: Space, tmp_path: Path, path: str) -> None:
    other = tmp_path / "other"
    other.write_text("another kernel says something else\n")
    prefix = ("unshare", "-m", "sh", "-c", f'mount --bind {other} {path} && exec "$@"', "sh")
    try:
        subprocess.run([*prefix, "true"], check=True, capture_output=True)
    except subprocess.CalledProcessError:
        pytest.skip(f"this kernel has no {path}")

    assert not at_once(built, "//...", prefix=prefix)


def test_another_mount_namespace_is_the_same_machine(built: Space) -> None:
    """Its mounts have other numbers."""
    assert at_once(built, "//...", prefix=("unshare", "-m"))


def test_what_is_too_young_to_trust_is_looked_at_again(built: Space) -> None:
    """A file that has just been written may change once more without its stamp telling."""
    built.write("p/text.txt", "two\n")
    ahead = time.time() + 7200
    os.utime(built.root / "p/text.txt", (ahead, ahead))

    assert [at_once(built) for _ in range(3)] == [False, False, False]


def test_the_home_folders_options_are_looked_at(built: Space, tmp_path: Path) -> None:
    """Its file is no part of the workspace, and may have just been written all the same."""
    place = tmp_path / "home/.bkrc"
    place.parent.mkdir()

    def again() -> bool:
        command = [word for word in built.command("build", "//...") if word != "--nohome_rc"]
        environment = {**os.environ, "HOME": str(place.parent)}
        done = subprocess.run(
            [command[0], "-Ximporttime", *command[1:]],
            cwd=built.root,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return "bkrules.cli" not in done.stderr

    assert [again() for _ in range(3)] == [False, True, True]
    place.write_text("build --jobs=1\n")
    ahead = time.time() + 7200
    os.utime(place, (ahead, ahead))
    assert [again() for _ in range(2)] == [False, False]
    os.utime(place, (1, 1))
    assert [again() for _ in range(2)] == [False, True]
    place.write_text("build --jobs=2\n")
    os.utime(place, (1, 1))
    assert not again()


def test_a_value_of_the_environment_is_looked_at(built: Space) -> None:
    with_value = ("//...", "--test_env=LEVEL")
    assert [at_once(built, *with_value) for _ in range(2)] == [False, False]


def test_a_failure_is_no_answer_to_keep(built: Space) -> None:
    built.write("WORKSPACE.py", RULES.replace("# genrule", "genrule"))

    for _ in range(2):
        done = built.bk("build", "//...")
        assert done.returncode == 1
        assert "did not make the file 'copy'" in done.stdout


def test_answers_do_not_pile_up(built: Space) -> None:
    folder = built.root / "bk-out/.state/answers"
    for number in range(70):
        (folder / f"old{number}").write_text("")
    built.write("bk-out/small/layout/oci-layout", "{}").unlink()

    for _ in range(2):
        built.bk("build", "//...")

    assert len(list(folder.iterdir())) <= 64
