"""`bk worker` with a scheduler in this process, and a real bazel-remote."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
import schedulers
from bazel_remotes import Server, starter
from grpc_servers import grpc_server
from leftovers import Leftovers
from schedulers import ENDLESS, WAITS, Scheduler, Worker, payload, served, whole
from servers import free_port
from spaces import Space, wait_for

from bkrules.cache.cas import Cas
from bkrules.cache.file_digests import FileDigests
from bkrules.cache.http_store import HttpStore
from bkrules.cache.remote import Remote
from bkrules.cache.remote_options import RemoteOptions
from bkrules.execution.elsewhere import MOST_LOG
from bkrules.model import digest, reapi, rwapi
from bkrules.model.action import from_message

INVALID, PRECONDITION, UNAVAILABLE = 3, 9, 14
Begin = Callable[..., Worker]


@pytest.fixture
def cache(bazel_remote: Path, tmp_path: Path) -> Iterator[Server]:
    """The cache that the worker and the workspace share."""
    with starter(bazel_remote, tmp_path, "grpc") as start:
        yield start()


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    with served(Scheduler()) as found:
        yield found


@pytest.fixture
def begin(tmp_path: Path, scheduler: Scheduler, cache: Server) -> Iterator[Begin]:
    """Starts a worker with some options."""
    with ExitStack() as stack:

        def start(*words: str, **settings: str) -> Worker:
            settings = {"scheduler": scheduler.address, "cache": cache.url, **settings}
            return stack.enter_context(schedulers.worker(tmp_path, words, **settings))

        yield start


def begun(worker: Worker, count: int = 1) -> None:
    """Wait until that many commands of the worker run."""
    wait_for(lambda: worker.runs(count))


def told(scheduler: Scheduler, name: str) -> bool:
    """Whether the worker has told the scheduler of a lease, which it has begun then."""
    sessions = [message["bot_session"] for _, message in list(scheduler.requests)]
    return any(lease["id"] == name for session in sessions for lease in session["leases"])


def blob(server: Server, folder: Path, wanted: reapi.Message) -> bytes:
    """The bytes of a blob of the cache."""
    cas, faults = Cas(str(folder / "read"), FileDigests("")), list[str]()
    name = from_message(wanted)
    assert Remote(RemoteOptions(server.url), cas, faults.append).fetch([name]) == set(), faults
    data = cas.read(name)
    assert data is not None
    return data


def test_actions_of_both_kinds_of_payloads_run(
    space: Space, scheduler: Scheduler, cache: Server, begin: Begin, tmp_path: Path, leftovers: Leftovers
) -> None:
    schedulers.write(space, {"good": "read x <src/one.txt; echo $$x > $@", "bad": "echo oh; exit 7"})
    actions = schedulers.send(space, cache)
    worker = begin("--jobs=3", "--property=zone=a", "--property=zone=b")
    before = leftovers(worker.space.cache)
    scheduler.lease("/1", payload(actions["good"]))
    scheduler.lease(
        "/2", whole(blob(cache, tmp_path, {"hash": actions["bad"].hash, "size_bytes": actions["bad"].size}))
    )

    good, bad = scheduler.result("/1"), scheduler.result("/2")

    assert good["exit_code"] == 0
    [output] = good["output_files"]
    assert output["path"] == "out/out"
    assert blob(cache, tmp_path, output["digest"]) == b"one\n"
    assert (bad["exit_code"], bad["output_files"]) == (7, [])
    assert bad["stdout_raw"] == b"oh\n"
    [session] = scheduler.sessions
    [device] = session["worker"]["devices"]
    offered = [(found["key"], found["value"]) for found in device["properties"]]
    assert {("zone", "a"), ("zone", "b"), ("OSFamily", "linux")} <= set(offered)
    assert session["worker"]["configs"] == [{"key": "capacity", "value": "3"}]
    scheduler.lease("/3", payload(actions["good"]))
    assert scheduler.result("/3")["output_files"] == [output]
    assert worker.process.poll() is None
    wait_for(lambda: leftovers(worker.space.cache)["processes"] == before["processes"])
    assert worker.stop(signal.SIGTERM) == 0
    assert worker.says(f"{actions['bad'].hash}: exit code 7")


def test_an_input_that_was_damaged_between_two_actions_is_fetched_again(
    space: Space, scheduler: Scheduler, cache: Server, begin: Begin, tmp_path: Path
) -> None:
    """The worker remembers digests, and the file has the same size and time as before."""
    schedulers.write(space, {name: f"read x <src/one.txt; echo {name} $$x > $@" for name in "ab"})
    actions = schedulers.send(space, cache)
    worker = begin()
    scheduler.lease("/1", payload(actions["a"]))
    [output] = scheduler.result("/1")["output_files"]
    assert blob(cache, tmp_path, output["digest"]) == b"a one\n"
    path = Path(Cas(f"{worker.space.cache}/cas", FileDigests("")).path(digest.of_bytes(b"one\n")))
    status = path.stat()
    path.chmod(0o755)
    path.write_bytes(b"two\n")
    path.chmod(0o555)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    scheduler.lease("/2", payload(actions["b"]))
    [output] = scheduler.result("/2")["output_files"]
    assert blob(cache, tmp_path, output["digest"]) == b"b one\n"


def test_long_outputs_of_several_leases_fit_into_one_message(
    space: Space, scheduler: Scheduler, cache: Server, begin: Begin, tmp_path: Path
) -> None:
    """Each byte that is no text is shown by three, and a message of gRPC has 4 MiB."""
    names = ("/1", "/2")
    script = r"i=0; x='\377'; while test $$i -lt 21; do x=$$x$$x; i=$$((i+1)); done; printf $$x; exit 7"
    schedulers.write(space, {name: f"{script} # {name}" for name in "ab"})
    actions = schedulers.send(space, cache)
    worker = begin("--jobs=2")
    together = threading.Event()

    def hold(_method: str, message: reapi.Message, context: Any) -> bytes | None:
        if not together.is_set() and any(
            lease["state"] == rwapi.COMPLETED for lease in message["bot_session"]["leases"]
        ):
            context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
        return None

    scheduler.answer = hold
    for name, action in zip(names, actions.values(), strict=True):
        scheduler.lease(name, payload(action))
    wait_for(lambda: all(worker.says(f"{action.hash}: exit code 7") for action in actions.values()))
    together.set()
    for name in names:
        result = scheduler.result(name)
        assert result["exit_code"] == 7
        output = blob(cache, tmp_path, result["stdout_digest"])
        assert len(output) == MOST_LOG
        assert set(output.decode(errors="replace")) == {"\ufffd"}


def test_jobs_run_at_once_and_a_lost_lease_ends(
    space: Space, scheduler: Scheduler, cache: Server, begin: Begin, leftovers: Leftovers
) -> None:
    schedulers.write(space, {"endless": ENDLESS, "good": "echo good > $@"})
    actions = schedulers.send(space, cache)
    worker = begin("--jobs=2")
    before = leftovers(worker.space.cache)
    scheduler.lease("/1", payload(actions["endless"]))
    begun(worker)
    scheduler.lease("/2", payload(actions["good"]))
    assert scheduler.result("/2")["exit_code"] == 0
    scheduler.cancel("/1")
    wait_for(lambda: not worker.runs(1) and not list(worker.space.cache.glob("run/*")))
    assert leftovers(worker.space.cache)["processes"] == [
        line for line in leftovers(worker.space.cache)["processes"] if line in before["processes"]
    ]
    assert worker.says("/1: cancelled by the scheduler")
    scheduler.lease("/3", payload(actions["good"]))
    assert scheduler.result("/3")["exit_code"] == 0
    assert "/1" not in scheduler.completed


def test_a_closed_session_drops_its_work_and_a_new_one_begins(
    space: Space, scheduler: Scheduler, cache: Server, begin: Begin
) -> None:
    schedulers.write(space, {"endless": ENDLESS, "good": "echo good > $@"})
    actions = schedulers.send(space, cache)
    worker = begin()
    scheduler.lease("/1", payload(actions["endless"]))
    begun(worker)
    scheduler.cancel("/1")
    scheduler.close()
    wait_for(lambda: len(scheduler.sessions) == 2)
    assert not list(worker.space.cache.glob("run/*")), "the command has ended before"
    scheduler.lease("/2", payload(actions["good"]))
    assert scheduler.result("/2")["exit_code"] == 0


def test_the_scheduler_is_away_for_a_while(space: Space, cache: Server, begin: Begin, tmp_path: Path) -> None:
    """A running action continues meanwhile, and the scheduler gets its result in the same session."""
    schedulers.write(space, {"waits": WAITS})
    [action] = schedulers.send(space, cache).values()
    scheduler, port = Scheduler(), free_port()
    worker = begin(scheduler=f"grpc://127.0.0.1:{port}")
    wait_for(lambda: worker.says("the scheduler does not answer: connection refused"))
    with served(scheduler, port=port):
        scheduler.lease("/1", payload(action))
        begun(worker)
    count = worker.log.read_text().count("does not answer")
    wait_for(lambda: worker.log.read_text().count("does not answer") > count)
    with served(scheduler, port=port):
        assert scheduler.result("/1")["exit_code"] == 0
    assert len(scheduler.sessions) == 1


def test_no_session_begins_before_the_cache_answers(cache: Server, scheduler: Scheduler, begin: Begin) -> None:
    """A worker that can store nothing would take actions, and give each of them back."""
    cache.kill()
    worker, ended = begin(), begin(name="ended")
    for one in (worker, ended):
        wait_for(partial(one.says, "; the worker asks again"))
        assert one.says(f"remote cache {cache.url}: "), one.log.read_text()
    assert not scheduler.sessions
    ended.process.send_signal(signal.SIGTERM)
    assert ended.process.wait(300) == 0
    with subprocess.Popen(cache.process.args, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as again:
        try:
            wait_for(lambda: worker.says("session "))
        finally:
            again.kill()


def test_sigterm_lets_actions_end_and_takes_no_more(
    space: Space, scheduler: Scheduler, cache: Server, begin: Begin, leftovers: Leftovers
) -> None:
    schedulers.write(space, {"waits": WAITS, "good": "echo good > $@"})
    actions = schedulers.send(space, cache)
    worker = begin("--jobs=2")
    before = leftovers(worker.space.cache)
    scheduler.lease("/1", payload(actions["waits"]))
    begun(worker)
    worker.process.send_signal(signal.SIGTERM)
    wait_for(lambda: worker.says("the worker ends; actions that run: 1"))
    scheduler.lease("/2", payload(actions["good"]))  # a scheduler that has not noticed
    assert scheduler.result("/1")["exit_code"] == 0
    assert scheduler.outcome("/2")["status"] == {
        "code": UNAVAILABLE,
        "message": "the worker worker ends",
        "details": [],
    }
    assert worker.process.wait(300) == 0
    assert scheduler.requests[-1][1]["bot_session"]["status"] == rwapi.TERMINATING
    assert scheduler.requests[-1][1]["bot_session"]["leases"] == []
    after = leftovers(worker.space.cache)
    assert {**after, "processes": []} == {**before, "processes": []}
    assert set(after["processes"]) <= set(before["processes"])


def test_a_second_sigterm_ends_actions_and_gives_them_back(
    space: Space, scheduler: Scheduler, cache: Server, begin: Begin
) -> None:
    schedulers.write(space, {"endless": ENDLESS})
    [action] = schedulers.send(space, cache).values()
    worker = begin()
    scheduler.lease("/1", payload(action))
    begun(worker)
    worker.process.send_signal(signal.SIGTERM)
    wait_for(lambda: worker.says("the worker ends; actions that run: 1"))
    assert worker.stop(signal.SIGTERM) == 8
    assert scheduler.outcome("/1")["status"]["code"] == UNAVAILABLE
    assert not list(worker.space.cache.glob("run/*"))


def test_a_fetch_of_inputs_ends_with_its_lease(space: Space, scheduler: Scheduler, begin: Begin) -> None:
    """The cache sends so little at a time that the fetch would take hours."""
    schedulers.write(space, {"good": "echo good > $@"})
    reads = threading.Semaphore(0)

    def drops() -> Iterator[bytes]:
        reads.release()
        while not slow.stopped.wait(0.05):
            yield reapi.encode("ReadResponse", {"data": b"x"})

    with grpc_server() as slow:
        [action] = schedulers.send(space, slow).values()
        slow.answer = lambda method, _message, _context: drops() if method == "Read" else None
        worker = begin("--remote_timeout=86400", cache=slow.address)
        scheduler.lease("/1", payload(action))
        assert reads.acquire(timeout=300)
        scheduler.cancel("/1")
        wait_for(lambda: worker.says(f"{action.hash}: the worker has ended the action"))
        scheduler.lease("/2", payload(action))
        wait_for(lambda: told(scheduler, "/2"))  # the first fetch may have more than one read
        worker.process.send_signal(signal.SIGTERM)
        wait_for(lambda: worker.says("the worker ends; actions that run: 1"))
        assert worker.stop(signal.SIGTERM) == 8
        assert scheduler.outcome("/2")["status"]["code"] == UNAVAILABLE
        slow.answer = lambda _method, _message, _context: None
        begin(cache=slow.address, name="other")
        scheduler.lease("/3", payload(action))
        assert scheduler.result("/3")["exit_code"] == 0


def test_sigkill_leaves_no_process(
    space: Space, scheduler: Scheduler, cache: Server, begin: Begin, leftovers: Leftovers
) -> None:
    schedulers.write(space, {"endless": f"(trap '' TERM HUP; {ENDLESS}) & {ENDLESS}"})
    [action] = schedulers.send(space, cache).values()
    worker = begin()
    before = leftovers(worker.space.cache)
    scheduler.lease("/1", payload(action))
    begun(worker)
    worker.process.kill()
    worker.process.wait()

    def is_gone() -> bool:
        after = leftovers(worker.space.cache)
        return set(after["processes"]) <= set(before["processes"]) and after["mounts"] == before["mounts"]

    wait_for(is_gone)
    assert worker.space.bk("reap", "--disk_cache", str(worker.space.cache)).returncode == 0
    assert not list(worker.space.cache.glob("run/*"))


def test_the_status_tells_who_is_at_fault(
    space: Space, scheduler: Scheduler, cache: Server, begin: Begin, tmp_path: Path
) -> None:
    """The scheduler gives an action to another machine for UNAVAILABLE alone, which is when this machine is at fault."""
    schedulers.write(space, {"gpu": "echo > $@"}, more='exec_properties = {"gpu": "a100"},')
    [action] = schedulers.send(space, cache).values()
    worker = begin("--jobs=9")
    message = reapi.decode("Action", blob(cache, tmp_path, {"hash": action.hash, "size_bytes": action.size}))
    foreign = reapi.encode("Action", {**message, "salt": b"bk 9.9"})
    path = tmp_path / "foreign"
    path.write_bytes(foreign)
    store = HttpStore(RemoteOptions(cache.address("http")), lambda _fault: None)
    assert store.put_blobs({digest.of_bytes(foreign): str(path)})
    absent = reapi.encode("Digest", {"hash": "0" * 64, "size_bytes": 1})
    kinds = {"property": payload(action), "version": whole(foreign), "absent": {**payload(action), "value": absent}}
    kinds["type"] = {"type_url": "type.googleapis.com/google.rpc.Status", "value": b""}
    for name, found in kinds.items():
        scheduler.lease(name, found)
    said = {name: scheduler.outcome(name)["status"] for name in kinds}
    assert {status["code"] for status in said.values()} == {PRECONDITION}
    assert "needs a machine with the property gpu=a100" in said["property"]["message"]
    assert "of another version of bk: its salt is b'bk 9.9'" in said["version"]["message"]
    assert f"cannot get the action {'0' * 64}/1" in said["absent"]["message"]
    assert "the lease is for google.rpc.Status" in said["type"]["message"]
    assert all(not scheduler.completed[name]["result"] for name in kinds)

    cache.kill()
    fresh = reapi.encode("Digest", {"hash": "1" * 64, "size_bytes": 1})
    scheduler.lease("away", {**payload(action), "value": fresh})
    status = scheduler.outcome("away")["status"]
    assert status["code"] == UNAVAILABLE, status
    assert f"remote cache {cache.url}" in status["message"]
    assert worker.process.poll() is None


@pytest.mark.parametrize(
    ("code", "details", "check"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, "the token has expired", "BK_REMOTE_HEADER"),
        (grpc.StatusCode.PERMISSION_DENIED, "no bots for you", "BK_REMOTE_HEADER"),
        (grpc.StatusCode.INVALID_ARGUMENT, "Invalid instance name: [x]", "--remote_instance_name"),
        (
            grpc.StatusCode.UNIMPLEMENTED,
            "no such service",
            "--scheduler: it must be a server of the Remote Workers API",
        ),
    ],
)
def test_a_scheduler_that_refuses(scheduler: Scheduler, begin: Begin, code: Any, details: str, check: str) -> None:
    def refuse(_method: str, _message: reapi.Message, context: Any) -> bytes | None:
        context.abort(code, details)
        return None

    scheduler.answer = refuse
    worker = begin("--remote_header=authorization=Bearer s3cr3t-token")
    assert worker.process.wait(300) == 34
    assert worker.says("the scheduler refuses the worker worker: ")
    assert worker.says(details)
    assert any(line.startswith("  check ") and check in line for line in worker.log.read_text().splitlines())
    assert not worker.says("s3cr3t-token")
    assert scheduler.metadata[0]["authorization"] == "Bearer s3cr3t-token"


@pytest.mark.parametrize("code", [grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.PERMISSION_DENIED])
def test_a_cache_without_results(space: Space, scheduler: Scheduler, begin: Begin, code: grpc.StatusCode) -> None:
    """Commands need its blobs alone, since the scheduler stores their results."""
    schedulers.write(space, {"good": "echo good > $@"})
    with grpc_server() as cache:
        [action] = schedulers.send(space, cache).values()

        def refuse(method: str, _message: reapi.Message, context: Any) -> bytes | None:
            if method == "GetActionResult":
                context.abort(code, "no")
            return None

        cache.answer = refuse
        begin(cache=cache.address)
        scheduler.lease("/1", payload(action))
        assert scheduler.result("/1")["exit_code"] == 0


def test_a_cache_that_refuses(scheduler: Scheduler, begin: Begin) -> None:
    """Another attempt would have the same answer."""
    with grpc_server() as cache:
        cache.answer = lambda _method, _message, context: context.abort(grpc.StatusCode.UNAUTHENTICATED, "no")
        worker = begin(cache=cache.address)
        assert worker.process.wait(300) == 34
    said = worker.log.read_text()
    assert f"error: the worker worker cannot use its remote cache {cache.address}: " in said, said
    assert "it requires other credentials" in said, said
    assert "\n  check the certificates, and the token in BK_REMOTE_HEADER or --remote_header\n" in said, said
    assert not scheduler.sessions


def test_an_answer_that_is_none(scheduler: Scheduler, begin: Begin) -> None:
    """The worker asks again."""
    wrong = iter([b"\x0a\xff", b"\x0a\x01"])
    scheduler.answer = lambda _method, _message, _context: next(wrong, None)
    worker = begin()
    wait_for(lambda: len(scheduler.sessions) == 1)
    assert worker.says("the scheduler does not answer: the answer is no BotSession: ")
    assert worker.stop(signal.SIGTERM) == 0


def test_tls(authority: Path, cache: Server, begin: Begin) -> None:
    """The authority of --tls_certificate is that of the scheduler too."""
    key, certificate = (authority / name for name in ("server.key", "server.pem"))
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
    with served(Scheduler(), credentials) as scheduler:
        worker = begin(f"--tls_certificate={authority}/ca.pem", scheduler=scheduler.address)
        wait_for(lambda: len(scheduler.sessions) == 1)
        assert worker.stop(signal.SIGTERM) == 0
        stranger = begin(scheduler=scheduler.address, name="stranger")
        assert stranger.process.wait(300) == 34
        assert stranger.says("its certificate is not trusted")


def test_a_worker_without_work_ends_at_once_also_when_its_scheduler_hangs(scheduler: Scheduler, begin: Begin) -> None:
    released, asked = threading.Event(), threading.Event()

    def hang(method: str, _message: reapi.Message, _context: Any) -> bytes | None:
        if method == "UpdateBotSession":
            asked.set()
            released.wait()
        return None

    scheduler.answer = hang
    worker = begin()
    assert asked.wait(300)
    worker.process.send_signal(signal.SIGTERM)
    wait_for(lambda: worker.says("the worker ends; actions that run: 0"))
    released.set()
    assert worker.process.wait(300) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--remote_cache=grpc://x"], "--scheduler"),
        (["--scheduler=grpc://x"], "bk worker needs --remote_cache"),
        (
            ["--scheduler=http://x", "--remote_cache=grpc://x"],
            "must be a URL of grpc or grpcs without a path, as in grpc://build.example.com:50051, but was 'http://x'",
        ),
        (["--scheduler=grpc://x/path", "--remote_cache=grpc://x"], "must be a URL of grpc or grpcs without a path"),
        (["--scheduler=grpc://x:65536", "--remote_cache=grpc://x"], "--scheduler must be a URL"),
        (["--scheduler=grpc://x", "--remote_cache=grpc://x", "--jobs=0"], "--jobs"),
        (["--scheduler=grpc://x", "--remote_cache=grpc://x", "--name=a\nb"], "but was 'a\\nb'"),
        (
            ["--scheduler=grpc://x", "--remote_cache=grpc://x", "--name="],
            "--name: must be 1 to 255 printable characters",
        ),
        (
            ["--scheduler=grpc://x", "--remote_cache=grpc://x", "--remote_upload_local_results=no"],
            "--remote_upload_local_results=no forbids that",
        ),
    ],
)
def test_wrong_usage(space: Space, words: list[str], said: str) -> None:
    done = space.bk("worker", *words)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
