"""How bk begins and ends: whatever its streams, its environment and what lies in its folders, there is a right answer or a clear
error, never exit code 37 and never a hang.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from spaces import Space

PATIENCE = 120
"""Seconds after which a bk hangs, on a machine that does much else."""
BUILD_FILE = """from bkrules import genrule
genrule(name = "g", outs = ["o"], tools = ["//:cp"], srcs = ["s"], cmd = ["$(location //:cp)", "$<", "$@"])
"""


@pytest.fixture
def plain(space: Space) -> Space:
    """A workspace with one action, which has run."""
    file = space.root / "WORKSPACE.py"
    file.write_text("from bkrules import host_binary, workspace\nworkspace(name = 'plain')\nhost_binary(name = 'cp')\n")
    space.write("p/BUILD.py", BUILD_FILE)
    space.write("p/s", "text")
    return space


def run(space: Space, *arguments: str, shell: str = "", **settings: object) -> subprocess.CompletedProcess[bytes]:
    """Run bk, perhaps from a line of the shell in which `"$@"` is its command."""
    command = space.command(*arguments)
    words = ["sh", "-c", shell, "sh", *command] if shell else command
    environment = {**os.environ, **space.environment, **settings.pop("environment", {})}  # type: ignore[dict-item]
    given = {"cwd": space.root, "env": environment, "capture_output": True, "timeout": PATIENCE, **settings}
    return subprocess.run(words, check=False, **given)  # type: ignore[call-overload,no-any-return]


BUILD = ("build", "//p:g")
QUERY = ("query", "//...")
CLOSED = ['"$@" >&-', '"$@" 2>&-', '"$@" <&-', '"$@" <&- >&- 2>&-']


@pytest.mark.parametrize("shell", [*CLOSED, '"$@" 2>/dev/full', '"$@" </dev/full'])
def test_a_stream_that_is_no_use_changes_no_result(shell: str, plain: Space) -> None:
    # The second build gives the answer of the first.
    for command in (BUILD, BUILD, QUERY, ("--version",), ("build", "--help")):
        done = run(plain, *command, shell=shell)
        assert done.returncode == 0, done.stderr
        assert b"Traceback" not in done.stderr + done.stdout
    assert (plain.root / "bk-out/p/g/o").read_text() == "text"
    assert not [path for path in plain.root.rglob("*") if path.is_file() and b"[1/" in path.read_bytes()]


def test_what_cannot_be_printed_is_said_once(plain: Space) -> None:
    for command in (BUILD, BUILD, QUERY, ("--version",), ("build", "--help")):
        done = run(plain, *command, shell='"$@" >/dev/full')
        assert done.returncode == 36
        assert done.stderr.count(b"error: cannot write to standard output: No space left on device\n") == 1
        assert b"Traceback" not in done.stderr
    assert run(plain, *BUILD, shell='"$@" >/dev/full 2>&1').returncode == 36


def test_an_error_of_the_build_counts_more_than_one_of_its_output(plain: Space) -> None:
    assert run(plain, "build", "//p:none", shell='"$@" >/dev/full').returncode == 2


@pytest.mark.parametrize(("command", "code"), [(BUILD, 0), (QUERY, 0), (("build", "//p:none"), 2)])
def test_a_reader_that_is_gone_changes_no_result(command: tuple[str, ...], code: int, plain: Space) -> None:
    done = run(plain, *command, shell='{ "$@"; echo $? >code; } | true')
    assert (plain.root / "code").read_text() == f"{code}\n"
    assert b"Traceback" not in done.stderr


def test_a_socket_whose_reader_is_gone_is_no_fault(plain: Space) -> None:
    near, far = socket.socketpair()
    far.close()
    with near:
        assert run(plain, *QUERY, capture_output=False, stdout=near).returncode == 0


def test_a_pipe_that_does_not_wait_gets_everything(plain: Space) -> None:
    plain.write(
        "q/BUILD.py",
        "from bkrules import filegroup\n[filegroup(name = 'x' * 200 + str(n), srcs = []) for n in range(2000)]\n",
    )
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    with subprocess.Popen(plain.command("query", "//q:all"), cwd=plain.root, stdout=writer) as process:
        os.close(writer)
        with open(reader, "rb") as pipe:
            assert len(pipe.read().splitlines()) == 2000
    assert process.returncode == 0


LOCALES = [
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"LC_ALL": "POSIX"},
    {"LANG": "no_SUCH.latin"},
    {"PYTHONIOENCODING": "ascii"},
    {"LC_ALL": "en_US.ISO-8859-1", "PYTHONUTF8": "0"},
]


@pytest.mark.parametrize("locale", LOCALES)
def test_output_is_utf8_in_every_locale(locale: dict[str, str], plain: Space) -> None:
    plain.write("p/BUILD.py", "fehler = ä\n")
    done = run(plain, *BUILD, environment=locale)
    assert done.returncode == 1
    assert "'ä' is not available".encode() in done.stderr
    command = [sys.executable, "-m", "bkrules", *QUERY]  # not isolated from the environment
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), **locale}
    done = subprocess.run(command, cwd=plain.root, env=here, capture_output=True, timeout=PATIENCE, check=False)
    assert (done.returncode, "'ä' is not available".encode() in done.stderr) == (1, True), done.stderr


@pytest.mark.parametrize("word", [b"//p:\xff", b"//p:\xed\xa0\x80", b"--jobs=\xff", b"\xff", b"--disk_cache=\xff/x"])
def test_words_that_are_no_text_are_errors_of_usage(word: bytes, plain: Space) -> None:
    command = [*map(os.fsencode, plain.command("build", "//p:g")), word]
    done = subprocess.run(command, cwd=plain.root, capture_output=True, timeout=PATIENCE, check=False)
    assert done.returncode == 2, done.stderr


def test_a_folder_that_was_removed_is_named(plain: Space) -> None:
    for command in (BUILD, QUERY, ("clean",), ("logs", "x")):
        done = run(plain, *command, shell='mkdir gone && cd gone && rmdir ../gone && "$@"')
        assert (done.returncode, done.stderr.splitlines()[0]) == (2, b"error: the working folder was removed")


@pytest.mark.parametrize(
    "variables",
    [{"HOME": None}, {"HOME": ""}, {"HOME": "relative"}, {"XDG_CACHE_HOME": "relative"}, {"TMPDIR": "/none"}],
)
def test_variables_of_the_environment_that_lead_nowhere(
    variables: dict[str, str | None], plain: Space, tmp_path: Path
) -> None:
    """The default place of the cache is never in the folder in which bk runs."""
    kept = {name: value for name, value in os.environ.items() if name not in variables}
    given = {"HOME": str(tmp_path), **{name: value for name, value in variables.items() if value is not None}}
    here = (
        {**kept, **given}
        if variables.get("HOME", "") is not None
        else {name: value for name, value in kept.items() if name != "HOME"}
    )
    command = [sys.executable, "-I", "-m", "bkrules", "cache", "stats"]
    done = subprocess.run(command, cwd=plain.root, env=here, capture_output=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    assert not (plain.root / "relative").exists() and not (plain.root / ".cache").exists()


def fifo(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    (path / "inside").mkdir(parents=True)


def nowhere(path: Path) -> None:
    path.symlink_to("/no/such/place")


def itself(path: Path) -> None:
    path.symlink_to(path.name)


def zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def listening(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # names of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


KINDS = [fifo, nowhere, *(pytest.param(kind, marks=pytest.mark.soak) for kind in (folder, itself, zeros, listening))]


def _replaced(path: Path, make: Callable[[Path], None]) -> None:
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    make(path)


@pytest.mark.parametrize("make", KINDS)
def test_something_else_in_the_place_of_a_file_of_bk(make: Callable[[Path], None], plain: Space) -> None:
    """Each file of the state, of the caches, of the locks and of the outputs in turn: bk builds, or says what is in its way."""
    assert run(plain, *BUILD).returncode == 0
    files = [path for top in (plain.cache, plain.root / "bk-out") for path in sorted(top.rglob("*")) if path.is_file()]
    kinds = {path.relative_to(plain.root.parent).parts[:4] for path in files}
    assert len(kinds) >= 5
    for path in files:
        _replaced(path, make)
        done = run(plain, *BUILD)
        assert done.returncode in (0, 36), (path, done.stderr)
        said = done.stdout + done.stderr
        assert done.returncode == 0 or str(path.name).encode() in said, (path, said)
        if path.is_dir() and not path.is_symlink():
            (path / "inside").rmdir()
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
    assert run(plain, *BUILD).returncode == 0


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("path", ["run/thing", "run/1-abc/ledger/thing", "locks/thing", "ac/thing", "cas/ab/thing"])
def test_something_that_is_not_of_bk_in_its_cache(path: str, make: Callable[[Path], None], plain: Space) -> None:
    _replaced(plain.cache / path, make)
    assert run(plain, *BUILD).returncode == 0
    for command in (("reap",), ("cache", "stats"), ("cache", "verify"), ("cache", "gc", "--max_age", "1d")):
        words = [*command, "--disk_cache", str(plain.cache)] if command[0] == "cache" else command
        done = run(plain, *words)
        assert done.returncode in (0, 1, 36), (command, done.stderr)
        assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("name", ["WORKSPACE.py", "p/BUILD.py", "p/s", ".bkrc"])
def test_something_else_in_the_place_of_a_file_of_the_user(
    name: str, make: Callable[[Path], None], plain: Space
) -> None:
    _replaced(plain.root / name, make)
    for command in (BUILD, QUERY):
        done = run(plain, *command)
        assert done.returncode in (0, 1, 2, 36), done.stderr
        assert done.returncode or name in ("p/s", "p/BUILD.py", ".bkrc")
        assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    "data",
    [
        b"\0",
        b"build --jobs=2\0\n",
        b"\xff\xfe",
        b"build --jobs=\xed\xa0\x80\n",
        b"\xef\xbb\xbfbuild --jobs=1\n",
        b"build 'x",
        b"\\",
    ],
)
def test_odd_bytes_in_an_rc_file(data: bytes, plain: Space) -> None:
    (plain.root / ".bkrc").write_bytes(data)
    done = run(plain, *BUILD)
    assert done.returncode in (0, 2), done.stderr
    assert b"Traceback" not in done.stderr
    assert done.returncode == 0 or b".bkrc" in done.stderr


@pytest.mark.parametrize("make", [fifo, nowhere, itself, zeros])
def test_bk_out_that_is_no_folder(make: Callable[[Path], None], plain: Space) -> None:
    make(plain.root / "bk-out")
    done = run(plain, *BUILD)
    assert done.returncode == 36, done.stderr
    assert b"bk-out" in done.stderr and b"but bk needs a folder there" in done.stderr
    done = run(plain, "clean")
    assert done.returncode == 36
    assert b"bk did not make it" in done.stderr
    assert (plain.root / "bk-out").is_symlink() or (plain.root / "bk-out").exists()


def test_clean_says_what_it_does(plain: Space, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    out = plain.root / "bk-out"
    assert run(plain, "clean").stdout == f"there is no {out}\n".encode()
    out.symlink_to(elsewhere)
    assert run(plain, *BUILD).returncode == 0
    (elsewhere / "link").symlink_to(plain.root / "p")
    assert list(elsewhere.iterdir())
    done = run(plain, "clean")
    assert done.stdout == f"emptied {elsewhere}, to which {out} leads\n".encode()
    assert not list(elsewhere.iterdir()) and out.is_symlink() and (plain.root / "p/s").exists()
    assert run(plain, *BUILD).returncode == 0
    out.unlink()
    out.mkdir()
    assert run(plain, "clean").stdout == f"removed {out}\n".encode()
    assert not out.exists()


WAITS = """from bkrules import genrule
genrule(name = "g", outs = ["o"], tools = ["//:sleep"], cmd = ["$(location //:sleep)", "1000"])
"""
TOP = "from bkrules import host_binary, workspace\nworkspace(name = 'plain')\nhost_binary(name = 'sleep')\n"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_build_in_order(number: signal.Signals, plain: Space) -> None:
    plain.write("WORKSPACE.py", TOP)
    plain.write("p/BUILD.py", WAITS)
    command = plain.command(*BUILD)
    with subprocess.Popen(command, cwd=plain.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == b"  Genrule //p:g\n"
        process.send_signal(number)
        out, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 8
    assert b"interrupted: ending running actions" in errors
    assert b"1 action" in out
    assert not list((plain.cache / "run").iterdir())


ENDLESS = """
import sys
from bkrules import __main__
from bkrules.loading import meter

meter.STEPS = 1 << 60
sys.exit(__main__.main())
"""


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_signal_while_loading_ends_in_order_too(number: signal.Signals, plain: Space) -> None:
    plain.write("p/BUILD.py", "for a in range(1000000):\n  for b in range(1000000): x = [a]\n")
    reader, writer = os.pipe()
    options = [f"--build_event_json_file=/dev/fd/{writer}", "--disk_cache", str(plain.cache)]
    command = [sys.executable, "-I", "-c", ENDLESS, *BUILD, *options]
    with subprocess.Popen(command, cwd=plain.root, stderr=subprocess.PIPE, pass_fds=[writer]) as process:
        os.close(writer)
        with open(reader) as events:
            assert "started" in events.readline()
            process.send_signal(number)
            assert '"lastMessage"' in events.read().splitlines()[-1]
        _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (8, b"interrupted\n")


def test_signals_that_the_parent_blocked_are_taken(plain: Space) -> None:
    """A command of an action waits for its end by a signal; with all of them blocked that would never come."""
    blocked = "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()); "
    command = [sys.executable, "-c", f"{blocked}os.execv(sys.argv[1], sys.argv[1:])", *plain.command("build", "//...")]
    done = subprocess.run(command, cwd=plain.root, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


def test_what_nohup_has_started_goes_on(plain: Space) -> None:
    reader, writer = os.pipe()
    shell = f'trap "" HUP; exec "$@" --build_event_json_file=/dev/fd/{writer}'
    command = ["sh", "-c", shell, "sh", *plain.command(*BUILD)]
    with subprocess.Popen(command, cwd=plain.root, pass_fds=[writer], stdout=subprocess.PIPE) as process:
        os.close(writer)
        with open(reader, "rb") as events:
            assert events.readline()  # it has begun
            process.send_signal(signal.SIGHUP)
            assert events.read()
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
