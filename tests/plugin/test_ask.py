"""Methods of workers that bk calls in its own process, broken in every way: each fault names distribution, worker and method."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import strangers

from bkrules import cli
from bkrules.build.analysis import analyze_patterns
from bkrules.plugin import Mirror, ask
from bkrules.plugin.host import probe
from bkrules.plugin.manager import load
from bkrules.plugin.worker import SettingsError, Worker

CALLS: dict[str, tuple[str, Callable[[type[Worker]], object]]] = {
    "from_settings": ("cls, settings", lambda kind: ask.made(kind, {})),
    "check": ("self", lambda kind: ask.made(kind, {})),
    "describe_settings": ("cls", ask.described),
    "settings": ("self", lambda kind: ask.settings(ask.made(kind, {}))),
    "id": ("self", lambda kind: ask.id_of(ask.made(kind, {}))),
    "tools": ("self", lambda kind: ask.tools(ask.made(kind, {}))),
    "host_tools": ("self", lambda kind: ask.host_tools(ask.made(kind, {}))),
    "preflight": ("self, host", lambda kind: ask.preflight(ask.made(kind, {}), probe())),
    "no_jail": ("self", lambda kind: ask.no_jail(ask.made(kind, {}))),
    "features": ("self", lambda kind: ask.features(ask.made(kind, {}))),
    "cache_key": ("self", lambda kind: ask.cache_key(ask.made(kind, {}))),
    "modules": ("self", lambda kind: ask.modules(ask.made(kind, {}))),
    "configuration": ("self, mirror", lambda kind: ask.configuration(ask.made(kind, {}), Mirror("here:1", ()))),
}
ENDS = {
    "raises": ("1 / 0", "ZeroDivisionError: division by zero"),
    "exits": ("raise SystemExit(0)", "SystemExit: 0"),
    "raises what is no Exception": ("raise BaseException('odd')", "BaseException: odd"),
    "uses a name that is not there": ("undefined", "NameError: name 'undefined' is not defined"),
    "hangs": ("while True: pass", "it took longer than 0.2 s"),
}


def text_of(method: str, body: str) -> str:
    """Return a plugin's module whose worker has this method."""
    arguments = CALLS[method][0]
    head = "    @classmethod\n" if arguments.startswith("cls") else ""
    return strangers.worker(methods=f"{head}    def {method}({arguments}):\n        {body}\n")


def fault_of(call: Callable[[], object], *, thread: bool) -> str:
    """Return the error of a broken worker, here or in the thread of a job."""
    faults: list[str] = []

    def run() -> None:
        with pytest.raises(ask.WorkerFault) as caught:
            call()
        assert (caught.value.exit_code, caught.value.reason) == (1, "broken-plugin")
        faults.append(str(caught.value))

    if thread:
        job = threading.Thread(target=run)
        job.start()
        job.join()
    else:
        run()
    (text,) = faults
    return text


@pytest.mark.parametrize("thread", [False, True], ids=["main", "job"])
@pytest.mark.parametrize("method", CALLS)
@pytest.mark.parametrize("end", ENDS)
def test_a_method_that_does_not_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, end: str, thread: bool
) -> None:
    if end == "hangs":
        monkeypatch.setattr(ask, "SECONDS", 0.2)
    body, message = ENDS[end]
    with strangers.installed(tmp_path, {"near_worker.py": text_of(method, body)}):
        kind = load().workers["near"]
        text = fault_of(lambda: CALLS[method][1](kind), thread=thread)

    called = "from_settings" if method == "check" else method
    first, *rest = text.splitlines()
    assert first == f"the worker 'near' of the plugin bk-worker-near 1.0 failed in {called}: {message}"
    assert "  leave it out with --noplugin=bk-worker-near" in rest
    if end != "hangs" or not thread:
        assert rest[0].startswith(f"  {tmp_path}/near_worker.py:")


def test_one_that_waits_does_not_keep_the_thread_of_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait outside of Python, which no exception ends: the job continues, and only the calling thread stays."""
    monkeypatch.setattr(ask, "SECONDS", 0.2)
    body = "import os; os.read(os.pipe()[0], 1)"
    with strangers.installed(tmp_path, {"near_worker.py": text_of("preflight", body)}):
        kind = load().workers["near"]
        for thread in (False, True):
            text = fault_of(lambda: CALLS["preflight"][1](kind), thread=thread)
            assert "failed in preflight: it took longer than 0.2 s" in text


WRONG = {
    "from_settings": ("None", "7", "''"),
    "describe_settings": ("None", "{'a': 1}", "'abc'"),
    "settings": ("None", "[]", "{'a': object()}"),
    "id": ("None", "7", "''", "'a/b'", "'a b'", "'a\\nb'", "'a=b'"),
    "tools": ("None", "'runc'", "(1,)", "('',)", "('a/b',)", "('..',)", "{'runc'}"),
    "host_tools": ("None", "'newuidmap'", "(None,)", "('',)", "('a\\0b',)"),
    "preflight": ("None", "'no fuse'", "('no fuse',)", "7"),
    "no_jail": ("None", "True", "()"),
    "features": ("None", "'sbom'", "{1}", "{'sbomb'}", "['sbom']"),
    "cache_key": ("None", "{'a': 1}", "{1: 'a'}", "'abc'", "[('a', 'b')]"),
    "modules": ("None", "('json',)", "(None,)", "'json'"),
    "configuration": ("None", "[]", "'abc'"),
}


@pytest.mark.parametrize(("method", "value"), [(method, value) for method in WRONG for value in WRONG[method]])
def test_a_method_that_returns_something_else(tmp_path: Path, method: str, value: str) -> None:
    with strangers.installed(tmp_path, {"near_worker.py": text_of(method, f"return {value}")}):
        kind = load().workers["near"]
        text = fault_of(lambda: CALLS[method][1](kind), thread=False)

    assert text.startswith(f"the worker 'near' of the plugin bk-worker-near 1.0 is broken: its {method}() ")


@pytest.mark.parametrize("name", ["oci", "rootless", "containerd+stargz"])
def test_what_is_right_passes(name: str) -> None:
    kind = load().workers[name]
    worker = ask.default(kind)
    assert ask.id_of(worker) == name
    assert set(ask.settings(worker)) == set(ask.described(kind))
    assert ask.tools(worker) == worker.tools()
    assert ask.features(worker) == worker.features()
    assert ask.modules(worker) == [module.__name__ for module in worker.modules()]
    assert ask.preflight(worker, probe()) == worker.preflight(probe())


def test_a_setting_that_a_worker_refuses_is_no_fault_of_it() -> None:
    with pytest.raises(SettingsError):
        ask.made(load().workers["oci"], {"snapshotter": "zfs"})


def test_what_a_method_prints_does_not_break_json(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    body = "import os; print('printed'); os.write(1, b'written'); return ()"
    with strangers.installed(tmp_path, {"near_worker.py": text_of("preflight", body)}):
        assert cli.main(["workers", "--json"]) == 0
    out, err = capfd.readouterr()
    assert {row["worker"] for row in json.loads(out)} >= {"near", "oci"}
    assert all(word in err for word in ("printed", "written"))


@pytest.mark.parametrize("method", ["preflight", "describe_settings", "from_settings"])
def test_the_list_of_workers_shows_a_fault_in_its_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    with strangers.installed(tmp_path, {"near_worker.py": text_of(method, "raise SystemExit(0)")}):
        assert cli.main(["workers"]) == 1
        rows = capsys.readouterr().out
        assert cli.main(["workers", "--json"]) == 1
        documents = {row["worker"]: row for row in json.loads(capsys.readouterr().out)}
    message = f"the worker 'near' of the plugin bk-worker-near 1.0 failed in {method}: SystemExit: 0"
    assert f"  error: {message}\n" in rows[rows.index("near  (bk-worker-near 1.0)\n") :]
    assert "oci  (bk-worker-oci" in rows
    assert documents["near"]["error"].startswith(message)
    assert "error" not in documents["oci"]


WORKSPACE = "from bkrules import host_binary, workspace\nworkspace(name = 'test')\n" + "".join(
    f"host_binary(name = {name!r}, binary = 'cat')\n" for name in ("buildkitd", "buildctl", "registry", "runc")
)
BUILD = """from bkrules import estargz_image, image, image_mirror, test_matrix, worker
image(name = "small", files = {{}})
image_mirror(name = "mirror", images = {{"docker.io/library/small:latest": ":small"}})
worker(name = "oci", plugin = "oci")
worker(name = "odd", plugin = "near")
estargz_image(name = "lazy", image = ":small", worker = ":odd")
test_matrix(name = "m", tests = ["test_it.py"], workers = [":oci", ":odd"], mirror = ":mirror", isolation = {isolation!r})
"""
BROKEN = [method for method in CALLS if method not in ("describe_settings", "preflight", "no_jail")]


@pytest.mark.parametrize("method", [*BROKEN, "no_jail", "import"])
def test_the_cells_of_the_other_workers_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], method: str
) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "WORKSPACE.py").write_text(WORKSPACE)
    (tmp_path / "p/BUILD.py").write_text(BUILD.format(isolation="jail" if method == "no_jail" else "cell"))
    (tmp_path / "p/test_it.py").write_text("def test_it(sandbox): pass\n")
    monkeypatch.chdir(tmp_path)
    text = "import no_such_module" if method == "import" else text_of(method, "raise SystemExit(0)")
    with strangers.installed(tmp_path / "plugin", {"near_worker.py": text}):
        with pytest.raises(ask.WorkerFault) as caught:
            analyze_patterns(".", ["//p:m"])
        analysis = analyze_patterns(".", ["//p:m", "//p:lazy"], keep_going=True)
        assert cli.main(["build", "//p:m", f"--disk_cache={tmp_path}/cache"]) == 1
        assert capfd.readouterr().err == f"error: {caught.value}\n"

    actions = analysis.wanted()
    assert str(caught.value).startswith("//p:odd: the worker 'near' ")
    failing = {action.id for action in actions.values() if action.fault is not None}
    assert {str(actions[name].fault) for name in failing} == {str(caught.value)}
    cells = {action.cell.worker: action for action in actions.values() if action.cell is not None}
    odd = "odd" if method in ("import", "from_settings", "check", "id", "tools") else "near"
    assert set(cells) == {"oci", odd}
    assert failing.issuperset(cells[odd].dependencies)
    assert failing.isdisjoint(cells["oci"].dependencies)
    lazy = actions["//p:lazy EstargzImage"] if method == "no_jail" else None
    assert lazy is None or failing.isdisjoint(lazy.dependencies), "what needs no jail continues"
