"""Builds whose actions buildbox-casd runs, by bk's runner: a real engine between a client and the processes."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import casd
import pytest
from leftovers import Leftovers
from relays import Relay, relay
from servers import free_port, silent_server
from spaces import Space, wait_for

WORKSPACE = """
from bkrules import genrule, host_binary, workspace
workspace(name = "test")
host_binary(name = "sh")
host_binary(name = "cat", binary = "{cat}")
genrule(
    name = "one", srcs = ["one.txt"], outs = ["a/one"], tools = [":sh", ":cat"],
    cmd = ["$(location :sh)", "-c", {script!r}], {more}
)
genrule(
    name = "two", srcs = [":one"], outs = ["two"], tools = [":sh", ":cat"],
    cmd = ["$(location :sh)", "-c", "tools/cat $(SRCS) $(SRCS) > $@"],
)
genrule(name = "three", outs = ["three"], tools = [":sh"], cmd = ["$(location :sh)", "-c", "echo 3 > $@"])
"""
COPY = "$(location :cat) $< > $@"
ENDLESS = "echo begun; while :; do :; done"


@pytest.fixture
def server(casd_program: Path, tmp_path: Path) -> Iterator[casd.Casd]:
    """An engine that runs two actions at once."""
    with casd.engine(casd_program, tmp_path, ["--jobs=2"]) as running:
        yield running


def write(space: Space, script: str = COPY, more: str = "") -> None:
    """Write the workspace; the tool `cat` is there on this machine alone."""
    cat = space.root.parent / "cat"
    if not cat.exists():
        shutil.copy("/bin/cat", cat)
    space.write("one.txt", "one\n")
    space.write("WORKSPACE.py", WORKSPACE.format(cat=cat, script=script, more=more))


def words(url: str, *more: str) -> list[str]:
    return ["build", f"--remote_executor={url}", *more]


def build(space: Space, url: str, *more: str) -> subprocess.CompletedProcess[str]:
    return space.bk(*words(url, *more))


def fresh(space: Space, name: str) -> Space:
    """A machine with the same workspace and an empty disk cache."""
    return Space(space.root, space.cache.parent / name)


def actions(runner: Path) -> list[Path]:
    """The logs of the commands that run in the engine."""
    return list(runner.glob("run/*/action-*/log"))


def test_the_engine_runs_and_the_second_client_has_hits(space: Space, server: casd.Casd, tmp_path: Path) -> None:
    write(space)
    done = build(space, server.url, "//:two")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 actions: 2 ran, 0 cached" in done.stdout, done.stdout
    assert (space.root / "bk-out/two/two").read_text() == "one\none\n"
    assert not (space.root / "bk-out/one").exists()

    second = build(fresh(space, "second"), server.url, "//:two", "//:one")
    assert "2 actions: 0 ran, 2 cached" in second.stdout, second.stdout + second.stderr
    assert "hit remote 2" in second.stdout
    assert (space.root / "bk-out/one/a/one").read_text() == "one\n"


def test_what_this_machine_has_made_goes_to_the_engine(space: Space, server: casd.Casd) -> None:
    """The first action runs here, since its result is needed for nothing else than the second one's input there."""
    write(space)
    assert space.bk("build", "//:one").returncode == 0
    done = build(space, server.url, "//:two")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 actions: 1 ran, 1 cached" in done.stdout


def test_a_command_that_fails(space: Space, server: casd.Casd) -> None:
    write(space, "echo to out; echo to err >&2; exit 7")
    for _ in range(2):
        done = build(space, server.url, "//:two")
        assert done.returncode == 1, done.stdout + done.stderr
        text = done.stdout + done.stderr
        assert "the command failed with exit status 7" in text
        assert f"it ran on {server.url}" in text
        assert "to out" in text
        assert "to err" in text
        assert "1 ran" in text
    assert "to err" in (space.root / "bk-out/one/Genrule.log").read_text()


def test_a_long_output_of_a_command_that_fails(space: Space, server: casd.Casd) -> None:
    """It is a blob, and not a part of the result."""
    write(space, "echo first; i=0; while test $$i -lt 9000; do echo line $$i; i=$$((i+1)); done; exit 7")
    done = build(space, server.url, "//:one")
    assert done.returncode == 1, done.stdout + done.stderr
    log = (space.root / "bk-out/one/Genrule.log").read_text()
    assert log.startswith("first\nline 0\n")
    assert log.endswith("line 8999\n")


def test_an_output_that_is_missing(space: Space, server: casd.Casd) -> None:
    write(space, ":")
    done = build(space, server.url, "//:one")
    assert done.returncode == 1
    assert "the command did not make the file 'a/one'" in done.stdout + done.stderr


def test_a_command_that_takes_too_long(space: Space, casd_program: Path, tmp_path: Path) -> None:
    write(space, ENDLESS)
    with casd.engine(casd_program, tmp_path, runner=["--timeout=1"]) as server:
        done = build(space, server.url, "//:one")
    assert done.returncode == 1
    assert "the command took more than 1 s" in done.stdout + done.stderr


def test_the_client_has_a_limit_where_the_engine_has_none(
    space: Space, server: casd.Casd, tmp_path: Path, leftovers: Leftovers
) -> None:
    """casd does not tell whether an action runs, so the limit is that of queue and run together."""
    write(space, ENDLESS, "timeout = 1,")
    before = leftovers(tmp_path / "runner")
    done = build(space, server.url, "//:one", "--remote_queue_timeout=2")
    assert done.returncode == 34, done.stdout + done.stderr
    assert "the action has not ended after 3 s" in done.stdout + done.stderr
    wait_for(lambda: leftovers(tmp_path / "runner") == before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_what_runs_elsewhere(
    space: Space, server: casd.Casd, tmp_path: Path, leftovers: Leftovers, number: signal.Signals
) -> None:
    write(space, ENDLESS)
    runner = tmp_path / "runner"
    before = leftovers(runner)
    command = space.command(*words(server.url, "//:one"))
    with subprocess.Popen(command, cwd=space.root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        wait_for(lambda: bool(actions(runner)))
        process.send_signal(number)
        said = process.communicate()[0].decode()
    assert process.returncode == 8, said
    assert "Traceback" not in said
    wait_for(lambda: leftovers(runner) == before)


def test_an_engine_that_is_killed(space: Space, server: casd.Casd, tmp_path: Path, leftovers: Leftovers) -> None:
    write(space, ENDLESS)
    runner = tmp_path / "runner"
    command = space.command(*words(server.url, "//:one"))
    with subprocess.Popen(command, cwd=space.root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        wait_for(lambda: bool(actions(runner)))
        server.process.kill()
        server.process.wait()
        said = process.communicate()[0].decode()
    assert process.returncode == 34, said
    assert f"remote executor {server.url}: " in said
    wait_for(lambda: not leftovers(runner)["processes"] and not leftovers(runner)["run folders"])


def test_this_machine_takes_the_place_of_an_engine(space: Space, casd_program: Path, tmp_path: Path) -> None:
    write(space)
    with casd.engine(casd_program, tmp_path, text=casd.HANGS) as server:
        command = space.command(*words(server.url, "//:two", "--remote_local_fallback"))
        with subprocess.Popen(command, cwd=space.root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            wait_for(lambda: bool(children(server.process.pid)))
            server.process.kill()
            server.process.wait()
            said = process.communicate()[0].decode()
    assert process.returncode == 0, said
    assert f"Genrule //:one runs here: remote executor {server.url}: " in said
    assert "2 actions: 2 ran" in said
    assert (space.root / "bk-out/two/two").read_text() == "one\none\n"


def children(pid: int) -> list[str]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended
            found += (task / "children").read_text().split()
    return found


def test_a_stream_that_breaks_is_followed_by_another(space: Space, casd_program: Path, tmp_path: Path) -> None:
    """The command runs once: the client asks for the operation by its name."""
    write(space, "i=0; while test $$i -lt 2000000; do i=$$((i+1)); done; " + COPY)
    starts = tmp_path / "starts"
    noting = f"if '--validate-parameters' not in sys.argv: open('{starts}', 'a').write('+')\nsys.exit("
    text = casd.RUNNER.replace("sys.exit(", noting)
    with casd.engine(casd_program, tmp_path, text=text) as server, relay(server.port, Relay.cut) as through:
        command = space.command(*words(f"grpc://127.0.0.1:{through.port}", "//:one"))
        with subprocess.Popen(command, cwd=space.root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            wait_for(lambda: bool(actions(tmp_path / "runner")))
            connections = through.connections
            through.cut()
            said = process.communicate()[0].decode()
        assert through.connections > connections
    assert process.returncode == 0, said
    assert "1 action: 1 ran" in said
    assert starts.read_text() == "+"


def test_a_cache_is_no_engine(space: Space, casd_program: Path, tmp_path: Path) -> None:
    write(space)
    with casd.casd(casd_program, tmp_path) as port:
        done = build(space, f"grpc://127.0.0.1:{port}", "//:one")
    assert done.returncode == 34, done.stdout + done.stderr
    assert "it runs no actions" in done.stdout + done.stderr


def test_an_instance_that_nobody_has(space: Space, server: casd.Casd) -> None:
    write(space)
    done = build(space, server.url, "//:one", "--remote_instance_name=team/b")
    assert done.returncode == 34, done.stdout + done.stderr
    assert "'team/b'" in done.stdout + done.stderr


def test_a_property_that_nobody_has(space: Space, server: casd.Casd) -> None:
    write(space)
    done = build(space, server.url, "//:one", "--remote_default_exec_properties=gpu=a100")
    assert done.returncode == 34, done.stdout + done.stderr
    assert "needs a machine with the property gpu=a100" in done.stdout + done.stderr


def test_default_properties_are_in_the_key(space: Space, server: casd.Casd) -> None:
    write(space)
    for words_of_key in ([], ["--remote_default_exec_properties=OSFamily=linux"]):
        for ran in (1, 0):
            done = build(space, server.url, "//:three", *words_of_key)
            assert done.returncode == 0, done.stdout + done.stderr
            assert f"1 action: {ran} ran" in done.stdout


def test_no_engine(space: Space) -> None:
    write(space)
    url = f"grpc://127.0.0.1:{free_port()}"
    done = build(space, url, "//:one", "//:three", "--keep_going")
    assert done.returncode == 34, done.stdout + done.stderr
    here = build(space, url, "//:one", "--remote_local_fallback")
    assert here.returncode == 0, here.stdout + here.stderr


def test_a_silent_engine(space: Space) -> None:
    write(space)
    with silent_server() as url:
        done = build(space, url.replace("http:", "grpc:"), "//:one", "//:three", "--keep_going")
    assert done.returncode == 34, done.stdout + done.stderr


def test_where_a_mnemonic_runs(space: Space, server: casd.Casd, tmp_path: Path) -> None:
    write(space)
    done = build(space, server.url, "//:one", "--strategy=Genrule=local")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (tmp_path / "runner").exists()


def test_more_at_once_than_the_engine_has_slots(space: Space, server: casd.Casd) -> None:
    """All of them are in the engine's queue, and none is lost."""
    rules = "".join(
        f'genrule(name="n{n}", outs=["o"], tools=[":sh"], cmd=["$(location :sh)", "-c", "echo {n} > $@"])\n'
        for n in range(40)
    )
    write(space)
    with (space.root / "WORKSPACE.py").open("a") as file:
        file.write(rules)
    done = build(space, server.url, *(f"//:n{n}" for n in range(40)))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "40 actions: 40 ran" in done.stdout


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--remote_executor=http://x"], "--remote_executor must be grpc://"),
        (["--remote_executor=grpc://x/y"], "--remote_executor: a URL of gRPC has no path"),
        (["--remote_executor=grpc://x:65536", "--remote_cache=grpc://x"], "--remote_executor must be a URL"),
        (["--remote_executor=grpc://x", "--remote_upload_local_results=no"], "forbids that"),
        (["--remote_executor=grpc://x", "--strategy=Genrule"], "must be MNEMONIC=local or MNEMONIC=remote"),
        (["--remote_default_exec_properties=x"], "must be NAME=VALUE"),
        (["--remote_download_outputs=some"], "must be one of minimal, toplevel, all, but was 'some'"),
    ],
)
def test_wrong_usage(space: Space, more: list[str], said: str) -> None:
    write(space)
    done = space.bk("build", "//:one", *more)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
