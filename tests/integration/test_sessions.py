"""`bk run`, `bk shell` and `bk logs`, as a user has them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from leftovers import Leftovers
from spaces import Space, matrix, wait_for

Owned = Callable[[], dict[str, list[str]]]

TEST = """
def test_it(sandbox):
    print("in the test")
    sandbox.run("debug workers")
"""
CELL = "test_it/worker=oci"


def command(space: Space, name: str, *words: str) -> list[str]:
    return [*space.command(name), "--disk_cache", str(space.cache), *words]


@pytest.fixture
def owned(tools: Space, leftovers: Leftovers) -> Owned:
    """What there is on this machine of sessions in the workspace."""

    def look() -> dict[str, list[str]]:
        return leftovers(tools.cache)

    return look


def run(space: Space, name: str, *words: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(space, name, *words), cwd=space.root, input=typed, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("worker", ["oci", "//targets:containerd_stargz", "rootless"])
def test_run_gives_a_command_a_buildkit(tools: Space, owned: Owned, worker: str) -> None:
    before = owned()
    done = run(tools, "run", worker, "--", "buildctl", "debug", "workers", "--format", "{{json .}}")
    assert done.returncode == 0, done.stderr
    assert "org.mobyproject.buildkit.worker.sandbox" in done.stdout
    assert owned() == before


def test_run_is_where_the_user_is_and_has_the_mirror(tools: Space) -> None:
    tools.write("Dockerfile", "FROM docker.io/library/busybox:latest\nRUN echo hello > /hello.txt\n")
    words = "build --frontend=dockerfile.v0 --local context=. --local dockerfile=. --output type=local,dest=out"
    done = run(tools, "run", "--mirror", "//targets:mirror", "oci", "--", "buildctl", *words.split())
    assert done.returncode == 0, done.stderr
    assert (tools.root / "out/hello.txt").read_text() == "hello\n"


@pytest.mark.parametrize(
    ("script", "code"), [("exit 9", 9), ("kill -TERM $$", 128 + signal.SIGTERM), ("read line && test $line = in", 0)]
)
def test_the_exit_code_is_that_of_the_command(tools: Space, script: str, code: int) -> None:
    assert run(tools, "run", "oci", "--", "sh", "-c", script, typed="in\n").returncode == code


def test_a_parent_may_ignore_the_ends_of_its_children(tools: Space) -> None:
    """The kernel then keeps no exit code for a process that inherits that, unless bk undoes it."""
    words = command(tools, "run", "oci", "--", "sh", "-c", "exit 9")
    ignores = (
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", ignores, *words], cwd=tools.root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 9, done.stdout + done.stderr


def test_run_a_worker_of_a_module(tools: Space) -> None:
    """As after `bk init`: the workspace has neither workers nor a mirror, but the module that it names."""
    (tools.root / "targets/BUILD.py").unlink()
    tools.write("hello/BUILD.py", "from bkrules import filegroup\nfilegroup(name = 'hello', srcs = [])\n")
    done = run(tools, "run", "oci", "--", "buildctl", "debug", "workers")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "linux/" in done.stdout
    several = run(tools, "run", "con*", "--", "true")
    assert several.returncode == 2
    assert "say which one: @bk_tools//workers:containerd, @bk_tools//workers:containerd_stargz" in several.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("oic",), 2, "no worker targets are called 'oic'\n  did you mean 'oci'?"),
        (("//targets:mirror",), 2, "//targets:mirror is a image_mirror"),
        (("--mirror", "//targets:oci", "oci"), 2, "//targets:oci is a worker"),
        (("oci", "--", "no-such-command"), 127, "cannot run no-such-command: No such file"),
    ],
)
def test_run_of_what_is_not_there(tools: Space, words: tuple[str, ...], code: int, said: str) -> None:
    done = run(tools, "run", *words)
    assert done.returncode == code
    assert said in done.stderr


def test_a_worker_that_does_not_boot(tools: Space) -> None:
    build = tools.root / "targets/BUILD.py"
    build.write_text(build.read_text() + 'worker(name = "bad", plugin = "oci", tools = {"buildkitd": "//:buildctl"})\n')
    done = run(tools, "run", "bad", "--", "true")
    assert done.returncode == 1
    assert "buildkitd died before it was ready" in done.stderr
    assert "buildkitd.log | " in done.stderr


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_of_a_session_that_is_ended(tools: Space, owned: Owned, number: int) -> None:
    before = owned()
    started = tools.root / "started"
    words = command(tools, "run", "oci", "--", "sh", "-c", f"touch {started}; exec sleep 600")
    with subprocess.Popen(words, cwd=tools.root) as process:
        wait_for(started.exists)
        process.send_signal(number)
        assert process.wait(timeout=30) == (128 + number if number == signal.SIGTERM else -number)
    tools.bk("reap")

    def as_before() -> bool:
        return owned() == before

    wait_for(as_before, 10)


def test_shell_is_in_the_sandbox_of_the_cell(tools: Space, owned: Owned) -> None:
    matrix(tools, TEST, "oci", "containerd")
    before = owned()
    script = "pwd; hostname; ls t; buildctl debug workers; cat /proc/1/comm; ls /sys/class/net; exit 4"
    done = run(tools, "shell", f"//targets:small[{CELL}]", "--", "sh", "-c", script)
    assert done.returncode == 4, done.stderr
    words = done.stdout.split()
    assert words[:3] == ["/src", "cell", "test_small.py"]
    assert "PLATFORMS" in words
    assert words[-2:] == ["cell", "lo"]
    assert run(tools, "shell", CELL, "--", "cat", typed="from here\n").stdout == "from here\n"
    assert owned() == before


def test_shell_has_a_terminal(tools: Space) -> None:
    matrix(tools, TEST, "rootless")
    near, far = os.openpty()
    words = command(tools, "shell", "test_it/worker=rootless")
    with subprocess.Popen(words, cwd=tools.root, stdin=far, stdout=far, stderr=far, start_new_session=True) as process:
        os.close(far)
        said = _until(near, b"/src # ")
        assert b"bk: test_it/worker=rootless boots\r\n" in said
        os.write(near, b"tty && cat\n")
        _until(near, b"/dev/pts/0\r\n")
        os.write(near, b"to a cat\n")
        _until(near, b"to a cat\r\nto a cat\r\n")
        os.write(near, b"\x03")  # ends the cat, and neither the shell nor bk
        _until(near, b"/src # ")
        os.write(near, b"exit 6\n")
        said += _until(near, b"")
        assert process.wait(timeout=30) == 6, said
    os.close(near)


def _until(terminal: int, words: bytes, seconds: float = 60) -> bytes:
    """What a terminal prints up to these words; to its end without any."""
    said = b""
    deadline = time.monotonic() + seconds
    while not words or words not in said:
        assert time.monotonic() < deadline, said
        try:
            data = os.read(terminal, 1024)
        except OSError:
            data = b""
        if not data:
            assert not words, said
            break
        said += data
    return said


def test_logs_are_those_of_the_cell(tools: Space) -> None:
    matrix(tools, TEST, "oci")

    def logs(*words: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([*tools.command("logs"), *words], cwd=tools.root, capture_output=True, check=False)

    before = logs(CELL)
    assert before.returncode == 4
    assert b"no logs of //targets:small[test_it/worker=oci] are kept" in before.stderr
    assert tools.bk("test", "//targets:small").returncode == 0

    folder = tools.root / "bk-out/targets/small/test_it/worker=oci"
    assert logs(CELL, "test").stdout == (folder / "test.log").read_bytes()
    whole = logs(CELL).stdout
    for name in ("test", "buildkitd", "cell"):
        assert f"--- {folder / name}.log\n".encode() + (folder / f"{name}.log").read_bytes() in whole
    timeline = logs(CELL, "--timeline").stdout.decode()
    assert timeline.index("buildkitd ready after") < timeline.index("$ buildctl debug workers")
    assert not (folder / "timeline.log").exists()
    missing = logs(CELL, "stargz")
    assert missing.returncode == 4
    assert b"has no log 'stargz'\n  it has: buildkitd, cell, test" in missing.stderr
    assert b"the nearest names: test_it/worker=oci" in logs("test_it/worker=oic").stderr
