"""Machines that run actions by their digests, with a real bazel-remote between them, over HTTP and gRPC."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from bazel_remotes import Server, Start
from leftovers import Leftovers
from servers import free_port
from spaces import Space, wait_for

from bkrules.model import digest

SOURCE = "one\n"
WORKSPACE = """
from bkrules import genrule, host_binary, workspace
workspace(name = "test")
host_binary(name = "sh")
host_binary(name = "tool", binary = "{tool}")
genrule(
    name = "one",
    srcs = ["one.txt"],
    outs = ["a/one", "modes"],
    tools = [":sh", ":tool"],
    cmd = ["$(location :sh)", "-c", "$(location :tool) $< > out/a/one; {script}"],
    {more}
)
genrule(
    name = "two", srcs = [":one"], outs = ["two"], tools = [":sh", ":tool"],
    cmd = ["$(location :sh)", "-c", "tools/tool $(SRCS) > $@"],
)
"""
MODES = "for f in src/one.txt tools/tool; do test -x $$f && echo $$f; done > out/modes; :"


@pytest.fixture
def tool(tmp_path: Path) -> Path:
    """A program that only the machine with the workspace has."""
    return Path(shutil.copy("/bin/cat", tmp_path / "tool"))


@pytest.fixture
def client(space: Space, tool: Path) -> Space:
    """The machine with the workspace."""
    write(space, tool)
    return space


@pytest.fixture
def worker(tmp_path: Path) -> Space:
    """A machine without a workspace."""
    (tmp_path / "worker").mkdir()
    return Space(tmp_path / "worker", tmp_path / "worker-cache")


def write(space: Space, tool: Path, script: str = MODES, more: str = "") -> None:
    space.write("one.txt", SOURCE)
    space.write("WORKSPACE.py", WORKSPACE.format(tool=tool, script=script, more=more))


def push(space: Space, server: Server, target: str) -> list[str]:
    """Send the actions without a result; their digests."""
    words = ["--json", f"--remote_cache={server.url}", f"--disk_cache={space.cache}"]
    done = space.bk("cache", "push", target, "--actions", *words)
    assert done.returncode == 0, done.stderr
    return [action["digest"] for action in json.loads(done.stdout)["actions"]]


def run(worker: Space, server: Server, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    return worker.bk("run-action", name, f"--remote_cache={server.url}", f"--disk_cache={worker.cache}", *words)


def test_one_machine_sends_the_second_runs_the_third_has_a_hit(
    client: Space, worker: Space, start: Start, tool: Path, tmp_path: Path, leftovers: Leftovers
) -> None:
    server = start()
    before = leftovers(worker.cache)
    [one] = push(client, server, "//:two")
    words = (f"--remote_cache={server.url}", f"--disk_cache={client.cache}")
    told = client.bk("cache", "push", "//:two", "--actions", *words)
    assert told.stdout == f"{one} //:one\n"
    assert "1 actions sent; not sent: 1 (Genrule), which need a result of another one" in told.stderr
    assert "build the tools and images here, or run what was sent; then push again" in told.stderr
    kept = tool.rename(tmp_path / "kept")  # so that only the cache has it

    first, again = (run(worker, server, one) for _ in range(2))

    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith(f"{one.split('/')[0]} ran in ")
    assert again.stdout == f"{one.split('/')[0]} cached\n"
    assert leftovers(worker.cache) == before

    kept.rename(tool)
    [two] = push(client, server, "//:two")
    assert two != one, "the first one has a result now"
    fresh = Space(worker.root, tmp_path / "another-cache")
    assert run(fresh, server, two).returncode == 0

    third = Space(client.root, tmp_path / "third-cache")
    done = third.bk("build", "//:one", "//:two", f"--remote_cache={server.url}")
    assert "2 actions: 0 ran, 2 cached" in done.stdout, done.stdout + done.stderr
    assert "hit remote 2" in done.stdout
    made = client.root / "bk-out"
    assert (made / "one/a/one").read_text() == SOURCE
    assert (made / "one/modes").read_text() == "tools/tool\n"
    assert (made / "two/two").read_text() == SOURCE + "tools/tool\n"


def test_both_ways_make_the_same(client: Space, worker: Space, start: Start, tmp_path: Path) -> None:
    """A result of a build is a hit for run-action, and its outputs are those that run-action makes."""
    [one] = push(client, start(folder="one"), "//:one")
    server = start(folder="other")
    [same] = push(client, server, "//:one")
    assert same == one
    done = client.bk("build", "//:one", f"--remote_cache={server.url}")
    assert "1 action: 1 ran" in done.stdout, done.stdout
    assert run(worker, server, one).stdout == f"{one.split('/')[0]} cached\n"
    assert push(client, server, "//:one") == []

    bare = start(folder="bare")
    fresh = Space(client.root, tmp_path / "fresh-cache")
    assert push(fresh, bare, "//:one") == [one]
    assert " ran in " in run(worker, bare, one).stdout
    third = Space(client.root, tmp_path / "third-cache")
    for url in (server.url, bare.url):
        outputs = client.root / "bk-out/one"
        assert third.bk("build", "//:one", f"--remote_cache={url}").returncode == 0
        assert {path.name: path.read_text() for path in outputs.rglob("*") if path.name in ("one", "modes")} == {
            "one": SOURCE,
            "modes": "tools/tool\n",
        }
        shutil.rmtree(third.cache)


def test_a_command_that_fails_leaves_nothing_in_the_cache(
    client: Space, worker: Space, start: Start, tool: Path
) -> None:
    server = start()
    write(client, tool, script="echo these are my last words >&2; exit 7")
    [one] = push(client, server, "//:one")
    for _ in range(2):
        done = run(worker, server, one)
        assert done.returncode == 1, done.stderr
        assert "these are my last words\n" in done.stderr
        assert "failed with exit status 7" in done.stderr
        assert done.stdout == ""
    assert push(client, server, "//:one") == [one]


def test_the_limits_are_those_of_the_machine(client: Space, worker: Space, start: Start, tool: Path) -> None:
    server = start()
    write(client, tool, script="while :; do :; done")
    [one] = push(client, server, "//:one")
    done = run(worker, server, one, "--timeout=1")
    assert done.returncode == 1, done.stderr
    assert "took more than 1 s" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_launcher_ends_an_action(
    client: Space, worker: Space, start: Start, tool: Path, leftovers: Leftovers, number: signal.Signals
) -> None:
    """As `scancel` and a deleted pod do: the command ends too, and nothing is stored."""
    server = start()
    before = leftovers(worker.cache)
    write(client, tool, script="while :; do :; done")
    [one] = push(client, server, "//:one")
    words = worker.command("run-action", one, f"--remote_cache={server.url}", f"--disk_cache={worker.cache}")
    with subprocess.Popen(words, cwd=worker.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: any(worker.cache.glob("run/*/action-*/log")))
        process.send_signal(number)
        said = process.communicate()
    assert process.returncode == 8, said
    assert "Traceback" not in said[1]
    assert leftovers(worker.cache) == before
    assert push(client, server, "//:one") == [one]


def test_a_property_that_this_machine_lacks(client: Space, worker: Space, start: Start, tool: Path) -> None:
    server = start()
    properties = '{"OSFamily": "linux", "gpu": "a100"}'
    write(client, tool, more=f"exec_properties = {properties},")
    [one] = push(client, server, "//:one")
    for words, has in (((), "none"), (("--property=gpu=t4",), "t4")):
        done = run(worker, server, one, *words)
        assert done.returncode == 36
        assert f"needs a machine with the property gpu=a100, but here gpu is {has}" in done.stderr
        assert "start `bk worker` or `bk run-action` with --property=gpu=a100" in done.stderr
    assert run(worker, server, one, "--property=gpu=t4", "--property=gpu=a100").returncode == 0


def test_what_the_cache_does_not_have(client: Space, worker: Space, start: Start, tmp_path: Path) -> None:
    server = start()
    [one] = push(client, server, "//:one")
    name, size = one.split("/")
    source = digest.of_bytes(SOURCE.encode())
    for wrong, said in (
        (f"{'0' * 64}/{size}", f"cannot get the action {'0' * 64}/{size}: remote cache {server.url}: "),
        (f"{name}/{int(size) + 1}", f"cannot get the action {name}/{int(size) + 1}: "),
        (f"{source.hash}/{source.size}", "is no Action as bk writes it"),
    ):
        done = run(worker, server, wrong)
        assert done.returncode == 34, done.stderr
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    server.blob(SOURCE.encode()).unlink()
    done = run(Space(worker.root, tmp_path / "fresh-cache"), server, one)
    assert done.returncode == 34
    assert "input files, such as src/one.txt: " in done.stderr
    assert "bk cache push --actions PATTERN..." in done.stderr


def test_no_server(worker: Space) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = worker.bk("run-action", f"{'0' * 64}/5", f"--remote_cache={url}", f"--disk_cache={worker.cache}")
    assert done.returncode == 34, done.stderr
    assert f"remote cache {url}: " in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run-action", "abc", "--remote_cache=http://x"], "must be HASH/SIZE"),
        (["run-action", f"{'A' * 64}/1", "--remote_cache=http://x"], "must be HASH/SIZE"),
        (["run-action", f"{'0' * 64}/1"], "bk run-action needs --remote_cache"),
        (["run-action", f"{'0' * 64}/1", "--remote_cache=http://x", "--property=x"], "must be NAME=VALUE"),
        (
            ["run-action", f"{'0' * 64}/1", "--remote_cache=http://x", "--remote_upload_local_results=no"],
            "--remote_upload_local_results=no forbids that",
        ),
        (["cache", "push", "--actions", "--remote_cache=http://x"], "needs targets and --remote_cache"),
        (["cache", "stats", "--actions"], "bk cache push --actions does"),
    ],
)
def test_wrong_usage(worker: Space, words: list[str], said: str) -> None:
    done = worker.bk(*words)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
