"""Actions run and their results are kept, with real caches; only the runner is the test's own."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from servers import free_port

from bkrules import errors
from bkrules.cache.action_cache import ActionCache, ActionResult
from bkrules.cache.cas import Cas
from bkrules.cache.file_digests import FileDigests
from bkrules.cache.remote import Remote
from bkrules.cache.remote_options import ExecutorOptions, RemoteOptions
from bkrules.cache.results import write_result
from bkrules.errors import ActionFailed, MachineLacks
from bkrules.execution.context import RunContext
from bkrules.execution.elsewhere import Elsewhere
from bkrules.execution.executor import Executor
from bkrules.execution.result import Attempt, CellReport, Outcome, Result
from bkrules.model import digest
from bkrules.model.action import Action, DirectoryNode, FileNode, HostFolder, Node, ReachedOutput, Text
from bkrules.model.digest import Digest
from bkrules.model.status import FailureClass, Status
from bkrules.report.build_result import BuildResult
from bkrules.runners.table import RUNNERS

MakeAction = Callable[..., Action]
TWICE = (Attempt(Status.FAILED, 1.0, "attempt_1/test.log"), Attempt(Status.PASSED, 1.0, "test.log"))
Run = Callable[[Action, Callable[[], Outcome]], Result]


@pytest.fixture
def executor(tmp_path: Path) -> Executor:
    return at(tmp_path / "cache", tmp_path)


def at(
    cache: Path,
    root: Path,
    may_be_cached: Callable[[Action], bool] = lambda _: True,
    whole: Callable[[Action], bool] = lambda _: True,
    engine: str = "",
) -> Executor:
    digests = FileDigests(str(root / "digests"))
    cas = Cas(str(cache / "cas"), digests)
    remote = Remote(RemoteOptions(engine), cas, lambda _: None) if engine else None
    actions = ActionCache(str(cache / "ac"), cas, remote)
    return Executor(
        lambda path: f"{root}/{path}",
        actions,
        digests,
        lambda: cast(RunContext, SimpleNamespace(runners=RUNNERS)),
        whole=whole,
        may_be_cached=may_be_cached,
        elsewhere=Elsewhere(ExecutorOptions(RemoteOptions(engine), 1, 1.0), cas, remote) if remote else None,
    )


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Outcome]], None]:
    """Makes that the runner."""

    def use(body: Callable[[], Outcome]) -> None:
        def runner(_action: Action, _inputs: Mapping[str, Node], _context: RunContext) -> Outcome:
            return body()

        monkeypatch.setitem(RUNNERS, "Test", runner)

    return use


@pytest.fixture
def out(tmp_path: Path) -> str:
    path = tmp_path / "out"
    path.write_text("made")
    return str(path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of half a MiB."""
    if os.geteuid() != 0:
        pytest.skip("not root")
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "bk-test", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


Runs = Callable[[Callable[[], Outcome]], None]


def test_what_passed_is_kept(executor: Executor, runs: Runs, make_action: MakeAction, out: str) -> None:
    action = make_action("a")
    assert executor.look_up(action) is None
    runs(lambda: Outcome(Status.PASSED, {"out": out}))

    ran = executor.run(action)
    found = executor.look_up(action)

    assert (ran.status, ran.cached) == ("passed", False)
    assert found is not None
    assert (found.status, found.cached, found.outputs) == ("passed", True, ran.outputs)
    assert Path(ran.outputs["out"].path).read_text() == "made"  # type: ignore[union-attr]


def test_what_another_run_has_stored_meanwhile_is_not_run_again(
    executor: Executor, runs: Runs, make_action: MakeAction, out: str
) -> None:
    runs(lambda: Outcome(Status.PASSED, {"out": out}))
    executor.run(make_action("a"))
    runs(lambda: pytest.fail("it ran again"))

    assert executor.run(make_action("a")).cached


def cell_files(folder: Path, result: str) -> dict[str, str]:
    """Write the outputs of a cell."""
    (folder / "result.json").write_text(result)
    (folder / "test.log").write_text("log")
    return {name: str(folder / name) for name in ("test.log", "result.json")}


def a_cell(make_action: MakeAction) -> Action:
    return replace(make_action("a", cell=True), outputs=("test.log", "result.json"))


SKIPPED = '{"class":"skip","reason":"no wings","status":"skipped"}'


def test_a_skip_by_the_test_itself_is_an_answer(
    executor: Executor, runs: Runs, make_action: MakeAction, tmp_path: Path
) -> None:
    action, files = a_cell(make_action), cell_files(tmp_path, SKIPPED)
    once = CellReport((Attempt(Status.SKIPPED, 1.0, "test.log", FailureClass.SKIP),))
    skip = Outcome(Status.SKIPPED, files, "no wings", FailureClass.SKIP, once)

    for one in (
        skip,
        replace(skip, is_own_skip=True, ran=replace(once, unlimited=("memory",))),
        replace(skip, is_own_skip=True, ran=replace(once, tainted=("/tmp/a",))),
    ):
        runs(lambda outcome=one: outcome)  # type: ignore[misc]
        assert executor.run(action).status == "skipped"
        assert executor.look_up(action) is None

    runs(lambda: replace(skip, is_own_skip=True))
    ran, found = executor.run(action), executor.look_up(action)

    assert found is not None
    assert (ran.cached, ran.is_kept, found.cached) == (False, True, True)
    for result in (ran, found):
        assert (result.status, result.failure, result.reason) == ("skipped", "skip", "no wings")
        assert result.outputs.keys() == files.keys()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        "[" * 100_000,
        '{"status":"flaky"}',
        '{"status":"failed","class":"test"}',
        '{"status":"new"}',
        '{"status":["passed"]}',
        '{"status":"skipped"}',
        '{"status":"skipped","class":"machine","reason":"no fuse"}',
        '{"status":"skipped","class":"skip","reason":1}',
        '{"status":"passed","reason":null}',
        '{"status":"passed"}' + " " * (4 << 20),
    ],
    ids=lambda text: text[:40],
)
def test_an_entry_that_is_no_answer_is_a_miss(
    executor: Executor, runs: Runs, make_action: MakeAction, tmp_path: Path, text: str
) -> None:
    """Anybody who can write to a cache may have written it."""
    action, files = a_cell(make_action), cell_files(tmp_path, text)
    runs(lambda: Outcome(Status.PASSED, files, ran=CellReport()))
    assert executor.run(action).status == "passed"

    assert executor.look_up(action) is None

    files |= cell_files(tmp_path, '{"status":"passed"}')
    executor.run(action)
    found = executor.look_up(action)
    assert found is not None
    assert found.status == "passed"


class _Server:
    """A remote cache that has one entry, and these blobs."""

    def __init__(self, entry: bytes, cas: Cas, blobs: Sequence[bytes]) -> None:
        self._entry, self._cas = entry, cas
        self._blobs = {digest.of_bytes(data): data for data in blobs}
        self.fetched: list[bytes] = []
        self.lies: list[str] = []

    def result(self, _key: Digest) -> bytes:
        """Return the entry."""
        return self._entry

    def fetch(self, names: Iterable[Digest]) -> set[Digest]:
        """Put the blobs into the disk cache. Return those that it has not."""
        lost = set()
        for name in names:
            data = self._blobs.get(name)
            if data is None:
                lost.add(name)
            else:
                self._cas.put(data)
                self.fetched.append(data)
        return lost

    def lied(self, what: str) -> None:
        """Keep what the client says of the server."""
        self.lies.append(what)


@pytest.mark.parametrize("whole", [True, False], ids=["with its bytes", "by name"])
@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b'{"class":"skip","reason":"no \\u001b[2Jwings","status":"skipped"}', "skipped"),
        (b'{"status":"passed"}', "passed"),
        (b'{"class":"machine","status":"skipped"}', ""),
        (b'{"status":"new"}', ""),
        (b"", ""),
    ],
)
def test_the_answer_in_a_remote_entry(
    make_action: MakeAction, tmp_path: Path, answer: bytes, status: str, *, whole: bool
) -> None:
    """Only that file is fetched where nothing else is needed. Whatever it says, an unknown status is a miss."""
    names = {"test.log": b"log", "result.json": answer}
    nodes = {name: FileNode(digest.of_bytes(data), "") for name, data in names.items()}
    entry, _ = write_result(ActionResult(nodes, 1.0), digest.of_bytes)
    executor = at(tmp_path / "cache", tmp_path, whole=lambda _: whole)
    cache = executor._actions
    for blobs in ([answer] if whole else [b"log"], [*names.values()]):  # at first, the server has lost one
        server = _Server(entry, cache.cas, blobs)
        cache.remote = server  # type: ignore[assignment]
        found = executor.ask(a_cell(make_action))
        if blobs != [*names.values()]:
            assert (found, server.lies) == (None, [])

    if not status:
        assert found is None
        assert "not a valid result of that action: " in server.lies[0]
        return
    assert found is not None
    assert (found.status, found.cache, server.lies) == (status, "remote", [])
    assert found.reason == ("no ?[2Jwings" if status == "skipped" else "")
    assert (b"log" in server.fetched) == whole


@pytest.mark.parametrize(
    "report", [CellReport(unlimited=("memory",)), CellReport(tainted=("a file in /tmp",))], ids=["unlimited", "tainted"]
)
def test_what_passed_without_full_isolation_is_not_kept(
    executor: Executor, runs: Runs, make_action: MakeAction, out: str, report: CellReport
) -> None:
    action = make_action("a", cell=True)
    runs(lambda: Outcome(Status.PASSED, {"out": out}, ran=report))

    result = executor.run(action)

    assert (result.status, result.ran, list(result.outputs)) == ("passed", report, ["out"])
    assert executor.look_up(action) is None


def test_a_cell_with_full_isolation_is_kept_whoever_tried_to_leave(
    executor: Executor, runs: Runs, make_action: MakeAction, out: str
) -> None:
    action = make_action("a", cell=True)
    runs(lambda: Outcome(Status.PASSED, {"out": out}, ran=CellReport(egress=(("wget", "tcp 192.0.2.1:80"),))))

    executor.run(action)

    found = executor.look_up(action)
    assert found is not None
    assert found.ran is None


def test_what_is_flaky_is_not_kept_and_says_why(
    executor: Executor, runs: Runs, make_action: MakeAction, out: str
) -> None:
    action = make_action("a", cell=True)
    runs(
        lambda: Outcome(
            Status.FLAKY, {"test.log": out}, "passed at attempt 2", FailureClass.INFRASTRUCTURE, CellReport(TWICE)
        )
    )

    result = executor.run(action)

    assert (result.status, result.reason, result.failure) == ("flaky", "passed at attempt 2", "infrastructure")
    assert (result.log, list(result.outputs), result.ran) == (out, ["test.log"], CellReport(TWICE))
    assert executor.look_up(action) is None
    assert BuildResult((result,), 1.0).exit_code == 0


def write_to_a_full_disk() -> Outcome:
    Path("/dev/full").write_text("x")
    raise AssertionError


@pytest.mark.parametrize("cell", [False, True], ids=["step", "cell"])
def test_a_full_disk_is_a_lack_of_the_machine(
    executor: Executor, runs: Runs, make_action: MakeAction, cell: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errors, "PLACES", {})  # of workspaces that other tests opened
    action = make_action("a", cell=cell)
    runs(write_to_a_full_disk)

    result = executor.run(action)

    assert (result.status, result.failure, result.cached) == ("failed", "machine", False)
    assert result.reason == os.strerror(errno.ENOSPC)
    assert "make room" in result.hint
    assert result.key == executor.key(action)
    assert BuildResult((result,), 1.0).exit_code == 36
    assert executor.look_up(action) is None


def test_a_cache_without_room_for_an_output_is_a_lack_of_the_machine(
    runs: Runs, make_action: MakeAction, tmp_path: Path, small_disk: Path
) -> None:
    executor = at(small_disk, tmp_path)
    (tmp_path / "large").write_bytes(bytes(1 << 20))
    runs(lambda: Outcome(Status.PASSED, {"out": str(tmp_path / "large")}))

    result = executor.run(make_action("a"))

    assert (result.status, result.failure) == ("failed", "machine")
    assert executor.look_up(make_action("a")) is None


def test_a_cache_without_room_for_an_input_is_a_lack_of_the_machine(
    runs: Runs, make_action: MakeAction, tmp_path: Path, small_disk: Path
) -> None:
    action = replace(make_action("a"), inputs=(("text", Text(bytes(1 << 20))),))
    runs(lambda: pytest.fail("it ran"))

    result = at(small_disk, tmp_path).run(action)

    assert (result.status, result.failure) == ("failed", "machine")


def test_an_error_that_is_no_lack_is_raised(executor: Executor, runs: Runs, make_action: MakeAction) -> None:
    def work() -> Outcome:
        raise OSError(errno.EBADF, "a bug")

    runs(work)

    with pytest.raises(OSError, match="a bug"):
        executor.run(make_action("a"))


def test_what_a_runner_says_failed_has_failed(executor: Executor, runs: Runs, make_action: MakeAction) -> None:
    def work() -> Outcome:
        raise ActionFailed("slug", "the compiler said no", log="line 1", hint="ask it why")

    runs(work)

    result = executor.run(make_action("a"))

    assert (result.status, result.failure, result.reason) == ("failed", "build", "the compiler said no")
    assert (result.log, result.hint) == ("line 1", "ask it why")


@pytest.mark.parametrize(("cell", "status", "code"), [(False, "failed", 36), (True, "skipped", 36)])
def test_what_the_machine_lacks_skips_a_cell_and_fails_a_step(
    executor: Executor, runs: Runs, make_action: MakeAction, cell: bool, status: str, code: int
) -> None:
    def work() -> Outcome:
        raise MachineLacks("preflight", "no /dev/fuse", hint="load it")

    runs(work)

    result = executor.run(make_action("a", cell=cell))

    assert (result.status, result.failure, result.hint) == (status, "machine", "load it")
    assert BuildResult((result,), 1.0).exit_code == code


def test_an_output_that_was_not_made_is_a_failure(
    executor: Executor, runs: Runs, make_action: MakeAction, tmp_path: Path
) -> None:
    runs(lambda: Outcome(Status.PASSED, {"out": str(tmp_path / "nowhere")}))

    result = executor.run(make_action("a"))

    assert (result.status, result.failure) == ("failed", "build")
    assert executor.look_up(make_action("a")) is None


@pytest.mark.parametrize("cell", [False, True], ids=["step", "cell"])
def test_what_must_run_anew_is_asked_of_no_cache_and_kept_all_the_same(
    runs: Runs, make_action: MakeAction, out: str, tmp_path: Path, cell: bool
) -> None:
    action = make_action("a", cell=cell)
    fresh = at(tmp_path / "cache", tmp_path, may_be_cached=lambda one: one.cell is None)
    runs(lambda: Outcome(Status.PASSED, {"out": out}))

    for _ in range(2):
        ran = fresh.look_up(action) or fresh.run(action)
        assert ran.status == "passed"

    assert ran.cached is not cell
    kept = at(tmp_path / "cache", tmp_path).look_up(action)
    assert kept is not None
    assert kept.cached


@pytest.mark.parametrize(
    ("status", "failure", "stays"),
    [
        ("failed", "test", False),
        ("timed out", "timeout", False),
        ("flaky", "test", False),
        ("failed", "infrastructure", True),
        ("flaky", "infrastructure", True),
        ("failed", "resources", True),
    ],
)
def test_what_fails_anew_is_proven_no_more(
    runs: Runs, make_action: MakeAction, out: str, tmp_path: Path, status: str, failure: str, stays: bool
) -> None:
    """As with Bazel, where a test that failed last time is run again."""
    action = make_action("a", cell=True)
    runs(lambda: Outcome(Status.PASSED, {"out": out}))
    at(tmp_path / "cache", tmp_path).run(action)
    runs(lambda: Outcome(Status(status), {}, "assert 1 == 2", FailureClass(failure), CellReport()))

    assert at(tmp_path / "cache", tmp_path, may_be_cached=lambda _: False).run(action).status == status

    assert (at(tmp_path / "cache", tmp_path).look_up(action) is not None) is stays


@pytest.mark.parametrize("damage", ["altered", "truncated", "deleted"])
def test_what_is_damaged_on_the_disk_is_made_again_before_it_is_read(
    tmp_path: Path, runs: Runs, make_action: MakeAction, out: str, damage: str
) -> None:
    """The reader is new, so it was not read when the build began; what it reads was a hit."""
    made, reader = make_action("a"), make_action("b", "a")
    runs(lambda: Outcome(Status.PASSED, {"out": out}))
    at(tmp_path / "cache", tmp_path).run(made)
    executor = at(tmp_path / "cache", tmp_path, whole=lambda one: one is reader)
    found = executor.look_up(made)
    assert found is not None
    executor.results["a"] = found
    assert executor.look_up(reader) is None
    blob = found.outputs["out"]
    assert isinstance(blob, FileNode)
    spoil(Path(blob.path), damage)
    ran: list[str] = []

    def runner(action: Action, inputs: Mapping[str, Node], _context: RunContext) -> Outcome:
        ran.append(action.id)
        assert [Path(node.path).read_text() for node in inputs.values() if isinstance(node, FileNode)] in ([], ["made"])
        return Outcome(Status.PASSED, {"out": out})

    RUNNERS["Test"] = runner
    assert executor.run(reader).status == "passed"
    assert ran == ["a", "b"]


@pytest.mark.parametrize("damage", ["altered", "truncated", "deleted"])
@pytest.mark.parametrize("text", [False, True])
def test_what_is_made_of_an_input_that_is_damaged_meanwhile_is_not_kept(
    tmp_path: Path, runs: Runs, make_action: MakeAction, out: str, damage: str, text: bool
) -> None:
    """It was whole when the action began; a link in `bk-out` was written to while the action read it."""
    made = make_action("a")
    reader = replace(make_action("b"), inputs=(("text", Text(b"a text")),)) if text else make_action("b", "a")
    runs(lambda: Outcome(Status.PASSED, {"out": out}))
    executor = at(tmp_path / "cache", tmp_path)
    executor.results["a"] = executor.run(made)

    def runner(_action: Action, inputs: Mapping[str, Node], _context: RunContext) -> Outcome:
        (node,) = inputs.values()
        assert isinstance(node, FileNode)
        spoil(Path(node.path), damage)
        return Outcome(Status.PASSED, {"out": out})

    RUNNERS["Test"] = runner
    assert executor.run(reader).status == "passed"
    runs(lambda: Outcome(Status.PASSED, {"out": out}))
    again = at(tmp_path / "cache", tmp_path)
    again.results["a"] = again.run(made)
    assert again.look_up(reader) is None
    assert again.run(reader).status == "passed"
    assert again.look_up(reader) is not None


@pytest.mark.parametrize("damage", ["altered", "truncated", "deleted"])
def test_what_is_damaged_on_the_disk_is_not_shown(
    tmp_path: Path, runs: Runs, make_action: MakeAction, out: str, damage: str
) -> None:
    runs(lambda: Outcome(Status.PASSED, {"out": out}))
    blob = at(tmp_path / "cache", tmp_path).run(make_action("a")).outputs["out"]
    assert isinstance(blob, FileNode)
    spoil(Path(blob.path), damage)

    assert at(tmp_path / "cache", tmp_path).look_up(make_action("a")) is None


def test_a_text_that_is_damaged_on_the_disk_is_written_again(
    tmp_path: Path, runs: Runs, make_action: MakeAction, out: str
) -> None:
    executor = at(tmp_path / "cache", tmp_path)
    action = replace(make_action("a"), inputs=(("text", Text(b"a text")),))
    place = Path(Cas(str(tmp_path / "cache/cas"), FileDigests("")).path(digest.of_bytes(b"a text")))
    place.parent.mkdir(parents=True)
    place.write_bytes(b"a test")
    runs(
        lambda: Outcome(Status.PASSED, {"out": out}) if place.read_bytes() == b"a text" else pytest.fail("it was read")
    )

    assert executor.run(action).status == "passed"


def link_to(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


@pytest.mark.parametrize(
    ("make", "reason", "said"),
    [
        (link_to("/etc/passwd"), "bad-output", "//p:a: the output out is a symbolic link"),
        (link_to("nowhere"), "bad-output", "//p:a: the output out is a symbolic link"),
        (os.mkfifo, "bad-output", "//p:a: the output out is a FIFO, not a file"),
        (Path.mkdir, "bad-output", "//p:a: the output out is a folder, not a file"),
        (lambda _: None, "missing-output", "//p:a: Test did not make out"),
    ],
)
def test_an_output_is_a_file_or_an_error_that_names_it(
    runs: Runs, make_action: MakeAction, tmp_path: Path, make: Callable[[Path], None], reason: str, said: str
) -> None:
    place = tmp_path / "made/out"
    place.parent.mkdir()
    make(place)
    runs(lambda: Outcome(Status.PASSED, {"out": str(place)}))

    result = at(tmp_path / "cache", tmp_path).run(make_action("a"))

    assert (result.status, result.failure, result.reason) == ("failed", "build", said)
    assert at(tmp_path / "cache", tmp_path).look_up(make_action("a")) is None


@pytest.mark.parametrize("nested", [False, True])
def test_an_output_is_not_read_behind_a_link(
    runs: Runs, make_action: MakeAction, tmp_path: Path, *, nested: bool
) -> None:
    """The folder of an output is replaced, and not the output, which is then a file of the host."""
    (tmp_path / "host").mkdir()
    (tmp_path / "host/c").write_text("a secret")
    made = tmp_path / "made"
    (made / "a").mkdir(parents=True)
    name = "a/b/c" if nested else "a/c"
    if nested:
        (made / "a/b").symlink_to(tmp_path / "host")
    else:
        (made / "a").rmdir()
        (made / "a").symlink_to(tmp_path / "host")
    runs(lambda: Outcome(Status.PASSED, {name: str(made / name)}))

    result = at(tmp_path / "cache", tmp_path).run(make_action("a"))

    assert result.status == "failed"
    assert f"{name} is behind {name[:-2]}, a symbolic link" in result.reason
    assert list((tmp_path / "cache").glob("cas/*/*")) == []


def test_outputs_that_are_larger_than_their_limit_are_a_matter_of_resources(
    runs: Runs, make_action: MakeAction, tmp_path: Path
) -> None:
    place = tmp_path / "out"
    with place.open("wb") as file:
        file.truncate(1 << 40)
    runs(lambda: Outcome(Status.PASSED, {"out": str(place)}, most=1 << 20))

    result = at(tmp_path / "cache", tmp_path).run(make_action("a"))

    assert (result.status, result.failure) == ("failed", "resources")
    assert result.reason == "//p:a: its outputs are larger than its disk of 1 MiB: out has 1048576 MiB"


def test_a_folder_is_stored_and_its_descriptor_closed(runs: Runs, make_action: MakeAction, tmp_path: Path) -> None:
    (tmp_path / "made/out/a").mkdir(parents=True)
    (tmp_path / "made/out/a/b").write_text("b")
    handle = os.open(tmp_path / "made", os.O_RDONLY)
    runs(lambda: Outcome(Status.PASSED, {"out": f"/proc/self/fd/{handle}/out"}, handle=handle))

    result = at(tmp_path / "cache", tmp_path).run(replace(make_action("a"), folders=("out",)))

    folder = result.outputs["out"]
    assert isinstance(folder, DirectoryNode)
    assert list(folder.files) == ["a/b"]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(handle)


def spoil(blob: Path, damage: str) -> None:
    """Do to a blob what a disk may do."""
    data = blob.read_bytes()
    blob.unlink()
    if damage != "deleted":
        blob.write_bytes(data[:-1] + (b"" if damage == "truncated" else b"!"))


@pytest.mark.parametrize(
    ("change", "is_kept"),
    [
        (lambda tree: None, True),
        (lambda tree: (tree / "x.go").write_text("edited"), False),
        (lambda tree: (tree / "x.go").unlink(), False),
        (lambda tree: (tree / "p/new.go").write_text(""), False),
        (lambda tree: (tree / "link").symlink_to("p"), False),
        (lambda tree: tree.rename(f"{tree}-moved"), False),
    ],
)
def test_what_is_made_of_a_folder_that_is_edited_meanwhile_is_not_kept(
    executor: Executor,
    make_action: MakeAction,
    runs: Callable[[Callable[[], Outcome]], None],
    out: str,
    tmp_path: Path,
    change: Callable[[Path], object],
    is_kept: bool,
) -> None:
    tree = tmp_path / "tree"
    (tree / "p").mkdir(parents=True)
    (tree / "x.go").write_text("x")
    action = replace(make_action("a"), inputs=(("src", HostFolder(str(tree), ("x.go",))),))

    def body() -> Outcome:
        change(tree)
        return Outcome(Status.PASSED, {"out": out})

    runs(body)
    result = executor.run(action)

    assert (result.status, result.cached) == (Status.PASSED, False)
    assert (executor.look_up(action) is not None) == is_kept


@pytest.mark.parametrize(
    ("edited", "names", "shared"),
    [
        ("TestB/2", ("TestA",), True),  # all that differs is the binary
        ("TestB/2", ("TestNone", "TestA"), True),
        ("TestB/2", ("TestB", "TestA"), False),
        ("TestB/2", ("TestNone",), False),
        ("TestB/2", ("TestC", "TestA"), False),  # the whole binary, not what comes next
    ],
)
def test_a_binary_of_go_counts_by_what_a_test_reaches(
    runs: Runs, make_action: MakeAction, tmp_path: Path, edited: str, names: tuple[str, ...], *, shared: bool
) -> None:
    build = replace(make_action("a"), outputs=("out", "reached"), folders=("reached",))
    reader = replace(make_action("b"), inputs=(("tools/x", ReachedOutput("a", "out", "reached", names)),))
    keys = []
    for number, other in enumerate(("TestB/1", edited)):
        folder = tmp_path / f"made-{number}"
        for name in ("TestA/1", "TestC/whole", other):
            (folder / "reached" / name).parent.mkdir(parents=True)
            (folder / "reached" / name).touch()
        (folder / "out").write_text(f"binary {number}")
        runs(lambda folder=folder: Outcome(Status.PASSED, {one: str(folder / one) for one in build.outputs}))  # type: ignore[misc]
        executor = at(tmp_path / f"cache-{number}", tmp_path)
        executor.results["a"] = executor.run(build)
        keys.append(executor.key(reader).digest)
        (node,) = executor.stage(reader).values()
        assert isinstance(node, FileNode)
        assert Path(node.path).read_text() == f"binary {number}"

    assert (keys[0] == keys[1]) == shared
    assert reader.dependencies == ("a",)


def with_binary_of_go(runs: Runs, make_action: MakeAction, tmp_path: Path, *, edit: bool, engine: str = "") -> Executor:
    """An executor that has built a binary of Go here, as `a`, while somebody edited its sources or not."""
    tree, made = tmp_path / "tree", tmp_path / "made"
    (made / "reached/TestA").mkdir(parents=True)
    (made / "reached/TestA/1").touch()
    (made / "out").write_text("binary")
    tree.mkdir()
    (tree / "x.go").write_text("x")
    build = replace(
        make_action("a"),
        inputs=(("src", HostFolder(str(tree), ("x.go",))),),
        outputs=("out", "reached"),
        folders=("reached",),
    )

    def body() -> Outcome:
        if edit:
            (tree / "x.go").write_text("edited")
        return Outcome(Status.PASSED, {name: str(made / name) for name in build.outputs})

    runs(body)
    executor = at(tmp_path / "cache", tmp_path, engine=engine)
    executor.results["a"] = executor.run(build)
    runs(lambda: Outcome(Status.PASSED, {"out": str(made / "out")}))
    return executor


REACHES = (("tools/x", ReachedOutput("a", "out", "reached", ("TestA",))),)


@pytest.mark.parametrize("edit", [False, True])
def test_what_is_made_with_a_binary_whose_sources_changed_meanwhile_is_not_kept(
    runs: Runs, make_action: MakeAction, tmp_path: Path, *, edit: bool
) -> None:
    """The binary may be that of the sources before, and what a test reaches that of the sources after the edit."""
    executor = with_binary_of_go(runs, make_action, tmp_path, edit=edit)
    reader = replace(make_action("b"), inputs=REACHES)

    assert executor.run(reader).status == "passed"
    assert (executor.look_up(reader) is None) == edit


@pytest.mark.parametrize("edit", [False, True])
def test_no_engine_runs_what_has_a_binary_whose_sources_changed_meanwhile(
    runs: Runs, make_action: MakeAction, tmp_path: Path, *, edit: bool
) -> None:
    """It would store the result under the key. There is none at this address, so what is sent to it fails."""
    engine = f"grpc://127.0.0.1:{free_port()}"
    executor = with_binary_of_go(runs, make_action, tmp_path, edit=edit, engine=engine)
    reader = replace(make_action("b"), inputs=REACHES, made_in="out")

    assert executor.run(reader).status == ("passed" if edit else "failed")
    assert executor.look_up(reader) is None
