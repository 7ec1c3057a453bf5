"""What a remote cache has to survive, against real servers. Here are all promises, with their tests.

- The codec has the bytes of the published stubs; what is cut short is refused:
  tests/integration/test_reapi_stubs.py::test_any_message_has_the_bytes_of_the_published_stubs,
  tests/test_reapi.py::test_golden_bytes, tests/test_reapi.py::test_garbage_raises_value_error_only
- A second machine runs nothing, and both protocols share the entries:
  tests/integration/test_remote_cache.py::test_a_second_machine_runs_nothing,
  tests/integration/test_remote_cache.py::test_both_protocols_share_the_entries,
  tests/integration/test_bazel_client.py::test_bazel_and_bk_share_a_server
- A server that is killed costs one warning, and half of a blob is never used, and replaced:
  test_a_server_killed_in_the_middle_of_an_upload,
  tests/integration/test_remote_cache.py::test_a_server_that_is_killed_changes_no_result,
  tests/integration/test_remote_cells.py::test_a_server_that_ends_under_cells_costs_a_warning
- A blob that the server altered, cut or lost is noticed, and sent again:
  tests/integration/test_remote_cache.py::test_a_blob_that_the_server_lost_is_noticed_and_healed
- A lie of a server is a miss, in bounded time and memory:
  tests/cache/test_remote.py::test_a_wrong_blob_is_a_miss_that_is_said_and_healed,
  tests/cache/test_remote.py::test_a_wrong_result_is_a_miss_that_is_said,
  tests/cache/test_remote_attacks.py::test_a_request_ends_with_its_timeout
- A server that refuses the client costs one warning, or exit code 34 where it is required; no secret is written:
  test_a_server_that_refuses_the_client, test_a_client_that_may_only_read,
  tests/integration/test_remote_cache.py::test_credentials_are_used_and_are_nowhere
- A silent server costs the same for any number of actions: test_a_silent_server_is_asked_by_each_thread_once
- A failure is never sent, and one that another client sent is ignored: test_no_failure_is_sent,
  test_a_planted_failure_is_ignored_and_replaced
- Two clients can run one action at once: test_two_clients_run_one_action_at_once,
  tests/integration/test_buildgrid.py::test_two_clients_with_one_action
- A CI shares results by either protocol: tests/integration/test_simulated_ci.py::test_three_changes
- Frames, messages and streams that no server should send cost one warning:
  tests/cache/test_grpc_attacks.py::test_an_attack_costs_a_warning
- One lost output is made again once, and said once: tests/execution/test_lost_outputs.py::test_one_loss_is_said_once
- Properties choose the worker, an action that no worker can run waits until it is cancelled, and failures are not kept:
  tests/integration/test_buildgrid.py::test_properties_results_failures
- A client with neither root nor Go has the cells of a matrix run, and a second one runs nothing:
  tests/integration/test_engine_matrix.py::test_the_matrix
- A killed worker's action is finished by another, and nothing of it is left:
  tests/integration/test_buildgrid.py::test_another_worker_finishes_the_action_of_a_killed_one,
  tests/integration/test_buildgrid.py::test_a_machine_dies_while_the_daemons_of_a_cell_run,
  tests/integration/test_worker.py::test_sigkill_leaves_no_process
- A scheduler or a cache that is killed loses nothing:
  tests/integration/test_buildgrid.py::test_the_scheduler_is_killed_and_begins_again,
  tests/integration/test_buildgrid.py::test_the_cache_is_killed_and_begins_again
- A cancelled operation ends its command, and a killed server of one host leaves nothing:
  tests/integration/test_buildgrid.py::test_a_cancelled_operation_ends_its_command,
  tests/integration/test_buildbox_run.py::test_an_action_that_is_cancelled_leaves_nothing,
  tests/integration/test_buildbox_run.py::test_an_engine_that_is_killed_leaves_nothing
- A busy engine loses no request: tests/integration/test_buildgrid.py::test_sixty_clients_of_twenty_threads
- Tokens that are none, or over, are refused: tests/integration/test_buildgrid.py::test_tokens
- Shards are disjoint, together everything, and stable:
  tests/test_selection.py::test_shards_are_disjoint_and_together_everything,
  tests/test_selection.py::test_the_same_seconds_give_the_same_shards

`tests/bench/remote.py` prints rates, which no test asserts.
"""

from __future__ import annotations

import collections
import itertools
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from bazel_remotes import Machine, Server, Start, build, shown, warnings
from grpc_servers import grpc_server
from relays import relay
from remote_machines import SECRET
from servers import cache_server

from bkrules.cache.http_store import IDLE
from bkrules.cache.remote import Store, _store
from bkrules.cache.remote_options import RemoteOptions
from bkrules.execution.scheduler import ASKERS
from bkrules.model import digest, reapi
from bkrules.model.digest import Digest

HUGE = 60 << 20
MANY = 200
COPY = """
from bkrules import genrule, host_binary
host_binary(name = "cp")
genrule(name = "copy", srcs = ["blob"], outs = ["out"], tools = [":cp"], cmd = ["$(location :cp)", "$<", "$@"])
"""
ENDINGS = """
from bkrules import genrule, host_binary
host_binary(name = "sh")
host_binary(name = "sleep")
genrule(name = "good", outs = ["x"], tools = [":sh"], cmd = ["$(location :sh)", "-c", "echo > $@"])
genrule(name = "exit", outs = ["x"], tools = [":sh"], cmd = ["$(location :sh)", "-c", "echo > $@; exit 3"])
genrule(name = "signal", outs = ["x"], tools = [":sh"], cmd = ["$(location :sh)", "-c", "echo > $@; kill -9 $$$$"])
genrule(
    name = "time", outs = ["x"], tools = [":sh", ":sleep"], timeout = 1,
    cmd = ["$(location :sh)", "-c", "echo > $@; $(location :sleep) 600"],
)
"""


def test_each_promise_has_a_test(repository: Path) -> None:
    promises = re.findall(r"(?:(tests/[a-z_/]+\.py)::)?(test_[a-z_]+)\b(?!\.py)", __doc__ or "")
    assert len(promises) > 32
    for path, name in promises:
        text = (repository / path if path else Path(__file__)).read_text()
        assert f"\ndef {name}(" in text, f"{path} has no {name}"


def client(url: str, said: list[str]) -> Store:
    """Another program that uses the server."""
    return _store(RemoteOptions(url), said.append)


def drop(name: Digest, chunks: Iterator[bytes]) -> None:
    """Read a blob as a disk cache does. Raises ValueError for other bytes."""
    collections.deque(digest.checked(name, chunks), 0)


def entries(server: Server) -> list[str]:
    """The keys of the results that the server holds."""
    files = (path.name for path in (server.folder / "data").glob("ac.v2/*/*") if path.is_file())
    return sorted({name[:64] for name in files})


def test_a_server_killed_in_the_middle_of_an_upload(machine: Machine, start: Start) -> None:
    """Started again, it has half of the blob and believes that to be the whole."""
    server = start("--storage_mode", "uncompressed")
    first, second, third = machine("first"), machine("second"), machine("third")
    data = os.urandom(HUGE)
    name = digest.of_bytes(data)
    for space in (first, second, third):
        space.write("huge/BUILD.py", COPY)
        (space.root / "huge/blob").write_bytes(data)
    with relay(server.ports[server.protocol], lambda _relay: server.kill(), requests=HUGE // 2) as near:
        done = build(first, f"{server.protocol}://127.0.0.1:{near.port}", target="//huge:copy")
    assert "1 action: 1 ran" in done.stdout
    assert len(warnings(done)) == 1, done.stderr

    server = start("--storage_mode", "uncompressed")
    halves = [path for path in server.blobs() if name.hash in path.name and path.stat().st_size < name.size]
    assert len(halves) == 1
    said: list[str] = []
    assert client(server.url, said).blobs([name], drop) == set()
    assert len(said) == 1
    assert name.hash in said[0]

    assert warnings(build(second, server.url, target="//huge:copy")) == []
    healed = build(third, server.url, target="//huge:copy")
    assert warnings(healed) == []
    assert "hit local 0, hit remote 1, ran 0, " in healed.stdout
    assert shown(third, "huge/copy") == {"out": data}


def test_a_planted_failure_is_ignored_and_replaced(machine: Machine, start: Start) -> None:
    server = start()
    first, second = machine("first"), machine("second")
    build(first, server.url)
    said: list[str] = []
    other = client(server.url, said)
    keys = entries(server)
    assert len(keys) == 3
    for key in keys:
        name = Digest(key, 1)
        data = other.result(name)
        assert data is not None
        message = reapi.decode("ActionResult", data)
        assert other.put_result(name, reapi.encode("ActionResult", {**message, "exit_code": 1}))
    assert said == []

    done = build(second, server.url)

    assert "3 actions: 3 ran" in done.stdout
    assert len(warnings(done)) == 1
    assert "it is the result of a failure" in warnings(done)[0]
    assert shown(second) == shown(first)
    healed = build(machine("third"), server.url)
    assert warnings(healed) == []
    assert "hit local 0, hit remote 3, ran 0, " in healed.stdout


def test_no_failure_is_sent(machine: Machine, start: Start) -> None:
    server = start()
    one = machine("one")
    one.write("endings/BUILD.py", ENDINGS)

    done = one.bk("build", "-k", "//endings:all", f"--remote_cache={server.url}")

    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.count("error: //endings:") == 3, done.stdout
    assert len(entries(server)) == 1


REFUSED = {
    "no password": "it requires other credentials",
    "wrong password": "it requires other credentials",
    "wrong authority": "its certificate is not trusted",
    "plaintext to TLS": "a server with TLS needs ",
}


@pytest.fixture
def users(tmp_path: Path) -> str:
    """A file with a user and the hash of a password, for a server."""
    hashed = subprocess.run(["openssl", "passwd", "-apr1", SECRET], capture_output=True, text=True, check=True)
    (tmp_path / "htpasswd").write_text(f"me:{hashed.stdout.strip()}\n")
    return str(tmp_path / "htpasswd")


@pytest.mark.parametrize("refused", REFUSED)
def test_a_server_that_refuses_the_client(
    machine: Machine, start: Start, authority: Path, tmp_path: Path, users: str, refused: str
) -> None:
    """The build continues without it; where the cache is required, or the command is about it, the exit code is 34."""
    is_secure = "password" not in refused
    files = ("--tls_cert_file", f"{authority}/server.pem", "--tls_key_file", f"{authority}/server.key")
    server = start(*(files if is_secure else ("--htpasswd_file", users)), tls=is_secure)
    url, words = server.url, []
    if refused == "wrong password":
        url = url.replace("//", f"//me:not-{SECRET}@")
    elif refused == "plaintext to TLS":
        url = url.replace("s://", "://").replace("//", f"//me:{SECRET}@")
    elif refused == "wrong authority":
        other = tmp_path / "other.pem"
        make = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=other",
            "-keyout",
            "/dev/null",
            "-out",
        ]
        subprocess.run([*make, str(other)], capture_output=True, check=True)
        words = [f"--tls_certificate={other}"]
    one, two = machine("one"), machine("two")

    done = build(one, url, *words)
    required = two.bk("build", "//images:third", f"--remote_cache={url}", "--remote_required", *words)
    pushed = one.bk("cache", "push", "//images:third", f"--remote_cache={url}", f"--disk_cache={one.cache}", *words)

    assert "3 actions: 3 ran" in done.stdout
    [warning] = warnings(done)
    assert "the build continues" in warning
    for run in (required, pushed):
        assert run.returncode == 34, run.stdout + run.stderr
        assert f"error: remote cache {server.protocol}" in run.stdout + run.stderr
    for run in (done, required, pushed):
        said = run.stdout + run.stderr
        assert REFUSED[refused] in said
        assert str(server.ports[server.protocol]) in said
        assert SECRET not in said
        assert "Traceback" not in said
    assert entries(server) == []
    for folder in (one.root, one.cache, two.root, two.cache):
        for path in folder.rglob("*"):
            assert path.is_symlink() or not path.is_file() or SECRET.encode() not in path.read_bytes(), path


def test_a_client_that_may_only_read(machine: Machine, start: Start, users: str) -> None:
    server = start("--htpasswd_file", users, "--allow_unauthenticated_reads")
    writer, reader = machine("writer"), machine("reader")
    assert warnings(build(writer, server.url.replace("//", f"//me:{SECRET}@"))) == []
    hits = build(reader, server.url)
    assert warnings(hits) == []
    assert "hit local 0, hit remote 3, ran 0, " in hits.stdout
    before = entries(server)

    reader.write("images/BUILD.py", 'from bkrules import image\nimage(name = "third", noise = {"other": 9})\n')
    done = build(reader, server.url)
    silent = build(machine("silent"), server.url, "--remote_upload_local_results=no")

    assert "1 action: 1 ran" in done.stdout
    [warning] = warnings(done)
    assert "it requires other credentials" in warning
    assert warnings(silent) == []
    assert "hit local 0, hit remote 3, ran 0, " in silent.stdout
    assert entries(server) == before


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_silent_server_is_asked_by_each_thread_once(machine: Machine, protocol: str) -> None:
    """It takes requests, and answers none: what a build loses does not depend on its number of actions."""
    one = machine("one")
    names = [f"small{number}" for number in range(MANY)]
    one.write(
        "many/BUILD.py",
        "from bkrules import image\n" + "".join(f'image(name = "{name}", noise = {{"{name}": 9}})\n' for name in names),
    )
    ended = threading.Event()
    with cache_server() as server, grpc_server() as far:
        server.answer = lambda _handler: ended.wait(600)
        far.answer = lambda method, _message, _context: (
            (ended.wait(600) and None) if method != "GetCapabilities" else None
        )
        try:
            done = build(one, server.address if protocol == "http" else far.address, target="//many:all")
        finally:
            ended.set()
        asked = len(server.requests) if protocol == "http" else len(far.requests) - far.count("GetCapabilities")

    assert f"{MANY} actions: {MANY} ran" in done.stdout
    assert len(warnings(done)) == 1
    assert 1 <= asked <= ASKERS


def test_two_clients_run_one_action_at_once(machine: Machine, start: Start) -> None:
    """No request passes before both have connected, unless one of them starts so late that the other would give up."""
    server = start()
    spaces = [machine(name) for name in ("one", "other")]
    connections, both = itertools.count(1), threading.Event()

    def first() -> None:
        if next(connections) == len(spaces):
            both.set()
        both.wait(IDLE / 2)

    said: list[subprocess.CompletedProcess[str]] = []
    with relay(server.ports[server.protocol], lambda _relay: None, first=first) as near:
        url = f"{server.protocol}://127.0.0.1:{near.port}"
        builds = [
            threading.Thread(target=lambda space=space: said.append(build(space, url, target="//images:first")))
            for space in spaces
        ]
        for thread in builds:
            thread.start()
        for thread in builds:
            thread.join()

    assert [warnings(done) for done in said] == [[], []]
    assert ["1 action: " in done.stdout for done in said] == [True, True]
    third = machine("third")
    hit = build(third, server.url, target="//images:first")
    assert warnings(hit) == []
    assert "hit local 0, hit remote 1, ran 0, " in hit.stdout
    assert shown(spaces[0], "images/first") == shown(spaces[1], "images/first") == shown(third, "images/first") != {}
