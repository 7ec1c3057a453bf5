"""What a test_matrix declares, from its build file to its actions; nothing runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bkrules import cli
from bkrules.build.analysis import analyze_patterns
from bkrules.errors import LoadError
from bkrules.model.action import Action, Source
from bkrules.model.parameters import AxisValue, TestCell, WorkerUpdate, parameters_of
from bkrules.plugin.worker import Worker

TOOLS = {**dict.fromkeys(("buildkitd", "buildctl", "registry", "runc", "rootlesskit"), "cat"), "server": "ls"}
WORKSPACE = "from bkrules import host_binary, workspace\nworkspace(name = 'test')\n" + "".join(
    f"host_binary(name = {name!r}, binary = {binary!r})\n" for name, binary in TOOLS.items()
)
BUILD = """from bkrules import host_binary, image, image_mirror, test_matrix, worker
image(name = "small", files = {{}})
image_mirror(name = "mirror", images = {{"docker.io/library/small:latest": ":small"}})
host_binary(name = "server", binary = "ls")
host_binary(name = "runc", binary = "ls")
worker(name = "oci", plugin = "oci")
worker(name = "rootless", plugin = "rootless")
test_matrix(name = "m", tests = [{tests}], workers = [":oci", ":rootless"], mirror = ":mirror", {more})
"""
AXES = 'axes = {"kind": {"plain": 1, "debug": {"buildkitd.toml": {"trace": True}, "value": 2}}}'
Analyzed = Callable[..., dict[str, Action]]


@pytest.fixture
def analyzed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Analyzed:
    """The cells of a matrix with this test file and these further attributes, by their names."""

    def analyze(test: str, more: str = "", *, tests: str = '"test_it.py"', **files: str) -> dict[str, Action]:
        (tmp_path / "WORKSPACE.py").write_text(WORKSPACE)
        (tmp_path / "p").mkdir(exist_ok=True)
        (tmp_path / "p/BUILD.py").write_text(BUILD.format(more=more, tests=tests))
        (tmp_path / "p/test_it.py").write_text(test)
        for name, text in files.items():
            (tmp_path / "p" / f"{name}.py").write_text(text)
        monkeypatch.chdir(tmp_path)
        actions = analyze_patterns(".", ["//p:m"]).wanted().values()
        return {action.cell.name: action for action in actions if action.cell}

    return analyze


def inputs(action: Action, start: str) -> list[str]:
    return [path for path, _ in action.inputs if path.startswith(start)]


def test_exclude_and_include_decide_what_is_a_cell(analyzed: Analyzed) -> None:
    entries = 'exclude = [{"kind": "debug"}], include = [{"kind": "debug", "worker": "oci", "test": "test_a"}]'
    cells = analyzed("def test_a(sandbox): pass\ndef test_b(sandbox): pass\n", f"{AXES}, {entries}")
    assert list(cells) == [
        "test_a/worker=oci/kind=debug",
        "test_a/worker=oci/kind=plain",
        "test_a/worker=rootless/kind=plain",
        "test_b/worker=oci/kind=plain",
        "test_b/worker=rootless/kind=plain",
    ]


@pytest.mark.parametrize(
    ("test", "more", "reason", "where"),
    [
        ("def test_a(): pass", 'exclude = [{"test": "test_*"}]', "empty-matrix", "attribute 'exclude'"),
        ("def test_a(): pass", 'exclude = [{"wroker": "oci"}]', "unknown-axis", "attribute 'exclude'"),
        ("def test_a(): pass", 'exclude = {"worker": "oci"}', "bad-attribute", "attribute 'exclude'"),
        ("def test_a(): pass", 'exclude = [{"worker": 1}]', "bad-attribute", "attribute 'exclude'"),
        ("def test_a(): pass", 'include = [{"worker": "oci"}]', "bad-entry", "attribute 'include'"),
        ("def test_a(: pass", "", "syntax-error", "p/test_it.py:1"),
        ("def helper(): pass", "", "empty-test", "attribute 'tests'"),
        (
            "def test_a(): pass",
            'axes = {"a": {"b": {"buildkitd.tml": 1, "flags": {}}}}',
            "bad-axis",
            "attribute 'axes'",
        ),
        ("def test_a(): pass", 'axes = {"a": {"b": {"other.toml": {}}}}', "unknown-file", "attribute 'axes'"),
        ("def test_a(): pass", 'axes = {"a": {"b": {(1, 2): 3}}}', "bad-attribute", "attribute 'axes'"),
        ("def test_a(): pass", 'axes = {"a": {"b": {1: 2, "1": 3}}}', "bad-attribute", "attribute 'axes'"),
        (
            "def test_a(): pass",
            'axes = {one: {str(i): i for i in range(10)} for one in "abcdefghijklmnop"}',
            "too-large",
            "attribute 'axes'",
        ),
        (
            "def test_a(): pass",
            'axes = {"a": {"b": {"tools": {"runcc": ":runc"}}}}',
            "unknown-tool",
            "attribute 'axes'",
        ),
        (
            "def test_a(): pass",
            'axes = {"a": {"b": {"tools": {"runc": ":none"}}}}',
            "unknown-label",
            "attribute 'axes'",
        ),
        ("def test_a(): pass", 'axes = {"a": {"b": {"tools": {"runc": ":mirror"}}}}', "wrong-kind", "attribute 'axes'"),
        ("def test_a(): pass", 'axes = {"a": {"b": {"tools": {"runc": "a b"}}}}', "bad-axis", "attribute 'axes'"),
        ("def test_a(): pass", 'axes = {"a": {"b": {"tools": {"runc": 7}}}}', "bad-axis", "attribute 'axes'"),
        ("def test_a(): pass", 'axes = {"a": {"b": {"tools": ":runc"}}}', "bad-axis", "attribute 'axes'"),
        ("def test_a(): pass", 'axes = {"a": {"b": {"runc": ":runc"}}}', "bad-axis", "attribute 'axes'"),
        ("def test_a(): pass", 'axes = {"a": {"b": {"env": {"buildkitd": {}}}}}', "bad-axis", "attribute 'axes'"),
        (
            "def test_a(): pass",
            'axes = {x: {"b": {"tools": {"runc": ":runc"}}} for x in "xy"}',
            "bad-axis",
            "attribute 'axes'",
        ),
        ("def test_a(): pass", 'updaters = ["daemons.py"]', "syntax-error", "p/daemons.py:1"),
        ("def test_a(): pass", 'tools = [":mirror"]', "wrong-kind", "attribute 'tools'"),
        ("def test_a(): pass", 'tools = ["//:server", "//p:server"]', "duplicate-name", "attribute 'tools'"),
        ("def test_a(): pass", 'tools = ["//p:runc"]', "duplicate-name", "attribute 'tools'"),
        ("def test_a(): pass", 'extra_workers = [":none"]', "unknown-label", "attribute 'extra_workers'"),
        ("def test_a(): pass", 'extra_workers = [":mirror"]', "wrong-kind", "attribute 'extra_workers'"),
        ("def test_a(): pass", 'extra_workers = [":oci", ":oci"]', "duplicate-name", "attribute 'extra_workers'"),
        (
            "def test_a(): pass",
            'extra_workers = [":oci"], isolation = "worker"',
            "bad-attribute",
            "attribute 'extra_workers'",
        ),
    ],
)
def test_what_is_refused(analyzed: Analyzed, test: str, more: str, reason: str, where: str) -> None:
    with pytest.raises(LoadError) as caught:
        analyzed(test, more, daemons="def edit(:")
    assert caught.value.reason == reason
    assert where in caught.value.where


def test_both_places_of_a_duplicate_are_named(analyzed: Analyzed) -> None:
    with pytest.raises(LoadError, match=r"p/test_it\.py:1 and p/other\.py:3 both have a test 'test_a'") as caught:
        analyzed("def test_a(): pass\n", tests='"test_it.py", "other.py"', other="\n\ndef test_a(): pass\n")
    assert (caught.value.reason, "attribute 'tests'" in caught.value.where) == ("duplicate-name", True)


def test_marks_decide_before_anything_starts(analyzed: Analyzed) -> None:
    cells = analyzed(
        "import pytest\n@pytest.mark.no_rootless\n@pytest.mark.no_parallel\n@pytest.mark.extra_timeout\n"
        "def test_a(sandbox): pass\ndef test_b(sandbox): pass\n",
        "timeout = 50",
    )
    on_oci, on_rootless = cells["test_a/worker=oci"], cells["test_a/worker=rootless"]
    assert on_oci.cell is not None
    assert on_rootless.cell is not None
    assert (on_oci.cell.skip, on_oci.request.exclusive, on_oci.timeout) == ("", True, 150)
    assert on_rootless.cell.skip == "the worker has no privileges"
    assert on_rootless.dependencies == ()
    other = cells["test_b/worker=oci"]
    assert (other.request.exclusive, other.timeout) == (False, 50)


@pytest.mark.parametrize(
    ("test", "helper"),
    [
        ("def test_a(): assert __file__\n", ""),
        ("import helper\ndef test_a(): helper.look()\n", "import inspect\ndef look(): return inspect.stack()\n"),
    ],
)
def test_of_a_module_that_may_be_looked_at_each_byte_counts(analyzed: Analyzed, test: str, helper: str) -> None:
    cells = analyzed(test, helper=helper)
    assert [dict(cell.inputs)["src/p/test_it.py"] for cell in cells.values()] == [Source("p/test_it.py")] * 2


def test_parameters_and_methods_are_cells(analyzed: Analyzed) -> None:
    cells = analyzed(
        "import pytest\n@pytest.mark.parametrize('n', [1, 2])\ndef test_a(sandbox, n): pass\n"
        "class TestX:\n    def test_b(self, sandbox): pass\n",
    )
    assert [name for name in cells if name.endswith("oci")] == [
        "test_a[1]/worker=oci",
        "test_a[2]/worker=oci",
        "TestX::test_b/worker=oci",
    ]
    method = cells["TestX::test_b/worker=oci"]
    assert method.cell is not None
    assert method.cell.folder == "TestX.test_b/worker=oci"
    assert (parameters_of(method, TestCell).module, parameters_of(method, TestCell).test) == (
        "p/test_it.py",
        "TestX::test_b",
    )


def test_an_update_is_in_the_inputs_of_its_cells_alone(analyzed: Analyzed) -> None:
    test = "def test_a(sandbox): pass\n"
    plain = analyzed(test)["test_a/worker=oci"]
    cells = analyzed(test, AXES)
    same, changed = cells["test_a/worker=oci/kind=plain"], cells["test_a/worker=oci/kind=debug"]
    assert dict(same.inputs) == dict(plain.inputs)
    assert "update" not in json.loads(same.arguments[0])
    different = {path for path, one in changed.inputs if dict(plain.inputs).get(path) != one}
    assert different == {"config/buildkitd.toml"}
    assert parameters_of(changed, TestCell).axes == {"kind": AxisValue("debug", 2)}


def test_tools_are_inputs_of_all_cells(analyzed: Analyzed) -> None:
    without = analyzed("def test_a(sandbox): pass\n")
    cells = analyzed("def test_a(sandbox): pass\n", 'tools = ["//:server", "//:runc"]')
    for name, cell in cells.items():
        assert set(inputs(cell, "tools/")) - set(inputs(without[name], "tools/")) == {"tools/server"}
        helpers = {str(file) for path, file in cell.inputs if path.startswith("host/helpers/")}
        assert any("libc.so" in one for one in helpers), "the libraries of a binary of this machine"


def test_functions_and_what_they_import_are_inputs(analyzed: Analyzed) -> None:
    axes = 'axes = {"kind": {"plain": 1, "edited": {"updater": "edit"}}}, updaters = ["daemons.py"]'
    cells = analyzed(
        "def test_a(sandbox): pass\n",
        axes,
        daemons="from p.helper import VALUE\ndef edit(configuration): pass\n",
        helper="VALUE = 1\n",
    )
    edited = cells["test_a/worker=rootless/kind=edited"]
    assert inputs(edited, "updaters/") == [
        "updaters/p/daemons.py",
        "updaters/p/helper.py",
    ]
    assert inputs(cells["test_a/worker=rootless/kind=plain"], "updaters/") == []
    assert parameters_of(edited, TestCell).update == WorkerUpdate(functions=("p/daemons.py::edit",))


def test_faults_of_the_mirror_are_told_to_their_cells_alone(analyzed: Analyzed) -> None:
    axes = 'axes = {"kind": {"plain": 1, "busy": {"mirror": {"status": 429}}}}'
    cells = analyzed("def test_a(sandbox): pass\n", axes)
    told = {name.rpartition("=")[2]: parameters_of(cells[name], TestCell).update for name in cells}
    assert told == {"plain": WorkerUpdate(), "busy": WorkerUpdate(mirror={"status": 429})}


def test_cells_that_share_a_worker_request_it_under_one_name(analyzed: Analyzed) -> None:
    tests = "def test_a(sandbox): pass\ndef test_b(sandbox): pass\n"
    axes = AXES.replace('"plain": 1', '"plain": 1, "equal": 2, "flag": {"flags": {"buildkitd": ["--trace"]}}')
    assert {cell.request.worker for cell in analyzed(tests, axes).values()} == {""}
    shared = analyzed(tests, f'{axes}, isolation = "worker"')
    by_name: dict[str, list[str]] = {}
    for name, cell in shared.items():
        by_name.setdefault(cell.request.worker, []).append(name)
    assert sorted(by_name.values()) == sorted(
        [f"test_{test}/worker={worker}/kind={kind}" for test in "ab" for kind in kinds]
        for worker in ("oci", "rootless")
        for kinds in (["debug"], ["equal", "plain"], ["flag"])
    )


def test_a_mirror_with_faults_cannot_be_shared(analyzed: Analyzed) -> None:
    more = 'isolation = "worker", axes = {"kind": {"busy": {"mirror": {"status": 429}}}}'
    with pytest.raises(LoadError, match="a mirror with faults cannot be shared"):
        analyzed("def test_a(sandbox): pass\n", more)


def test_a_jail_is_in_the_key_and_said_of_its_cells(analyzed: Analyzed) -> None:
    cells = analyzed("def test_a(sandbox): pass\n", 'isolation = "jail"')
    usual = analyzed("def test_a(sandbox): pass\n")

    for name, action in cells.items():
        assert action.cell is not None
        assert action.cell.jail
        assert parameters_of(action, TestCell) == replace(parameters_of(usual[name], TestCell), isolation="jail")
    assert not any(action.cell.jail for action in usual.values() if action.cell)


def test_a_worker_that_cannot_be_in_a_jail_is_an_error(analyzed: Analyzed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bk_worker_oci.OciWorker.no_jail", Worker.no_jail)
    with pytest.raises(LoadError, match="'oci' cannot run in a jail: its plugin does not declare that it can"):
        analyzed("def test_a(sandbox): pass\n", 'isolation = "jail"')


def test_an_axis_value_gives_other_tools(analyzed: Analyzed) -> None:
    """Only the workers that run such a tool have another one, and `sandbox.value` is the key `value`."""
    tools = '{"tools": {"runc": ":runc", "rootlesskit": "//:server"}, "value": "other"}'
    cells = analyzed("def test_a(sandbox): pass\n", 'axes = {"runc": {"own": "", "other": ' + tools + "}}")
    found = {name: dict(cell.inputs) for name, cell in cells.items()}
    for worker in ("oci", "rootless"):
        own, other = (found[f"test_a/worker={worker}/runc={choice}"] for choice in ("own", "other"))
        changed = {
            name.removeprefix("tools/") for name in own if name.startswith("tools/") and own[name] != other[name]
        }
        assert changed == ({"runc"} if worker == "oci" else {"runc", "rootlesskit"})
    told = parameters_of(cells["test_a/worker=oci/runc=other"], TestCell).axes["runc"]
    assert told == AxisValue("other", "other")


def test_tools_of_axis_values_are_dependencies(analyzed: Analyzed, capfd: pytest.CaptureFixture[str]) -> None:
    analyzed("def test_a(sandbox): pass\n", 'axes = {"runc": {"other": {"tools": {"runc": ":runc"}}}}')

    assert cli.main(["--nohome_rc", "query", "deps(//p:m, 1)"]) == 0

    assert "//p:runc" in capfd.readouterr().out.splitlines()


def test_an_extra_worker_is_in_the_keys_of_the_cells_that_may_start_it(analyzed: Analyzed) -> None:
    test = "def test_a(sandbox): pass\n"
    plain = analyzed(test)["test_a/worker=oci"]
    assert inputs(plain, "extra/") == []
    assert "extra" not in plain.arguments[-1]

    both = analyzed(test, 'extra_workers = [":rootless", ":oci"]')
    for name in ("oci", "rootless"):
        cell = both[f"test_a/worker={name}"]
        assert {"extra/oci/tools/runc", "extra/rootless/config/ranges.toml", "extra/oci/plugin/cache_key"} <= {
            *inputs(cell, "extra/")
        }
        assert inputs(cell, "host/helpers/newuidmap")
        extra = parameters_of(cell, TestCell).extra_workers
        assert [(one.id, one.label) for one in extra] == [("rootless", "//p:rootless"), ("oci", "//p:oci")]
    own = dict(plain.inputs)
    assert own.items() <= dict(both["test_a/worker=oci"].inputs).items()


def test_an_axis_value_does_not_change_an_extra_worker(analyzed: Analyzed) -> None:
    cells = analyzed("def test_a(sandbox): pass\n", f'extra_workers = [":oci"], {AXES}')
    plain, debug = (dict(cells[f"test_a/worker=oci/kind={kind}"].inputs) for kind in ("plain", "debug"))
    assert plain["config/buildkitd.toml"] != debug["config/buildkitd.toml"]
    assert plain["extra/oci/config/buildkitd.toml"] == debug["extra/oci/config/buildkitd.toml"]


def test_an_extra_worker_that_cannot_be_in_a_jail_is_an_error(
    analyzed: Analyzed, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = 'extra_workers = [":native"], isolation = "jail"\n)\nworker(name = "native", plugin = "rootless", snapshotter = "native"'
    assert analyzed("def test_a(sandbox): pass\n", more)
    told = {"native": "it is native", "overlayfs": ""}
    monkeypatch.setattr("bk_worker_rootless.RootlessWorker.no_jail", lambda self: told[self.snapshotter])
    with pytest.raises(LoadError, match=r"'rootless\+native' cannot run in a jail: it is native") as caught:
        analyzed("def test_a(sandbox): pass\n", more)
    assert "attribute 'extra_workers'" in caught.value.where


def test_a_program_must_be_able_to_tell_extra_workers_apart(analyzed: Analyzed) -> None:
    more = 'extra_workers = [":one", ":two"]\n)\n' + "".join(
        f'worker(name = "{name}", plugin = "oci", id = "a{sign}b")\n' for name, sign in (("one", "+"), ("two", "."))
    )
    more = more.rstrip()[:-1]
    assert analyzed("def test_a(sandbox): pass\n", more)
    with pytest.raises(LoadError, match=r"both 'a\+b' and 'a\.b' by BK_EXTRA_WORKER_A_B_HOST") as caught:
        analyzed("", more, tests='":server"')
    assert "attribute 'extra_workers'" in caught.value.where


@pytest.mark.parametrize(
    ("file", "text", "meant"),
    [
        ("pyproject.toml", "[tool.pytest.ini_options]\npython_function = 'check_*'\n", "python_functions"),
        ("pyproject.toml", "[tool.pytest.ini_option]\npython_functions = 'check_*'\n", "ini_options"),
        ("p/pytest.ini", "[pytest]\nadopts = -k small\n", "addopts"),
    ],
)
def test_a_setting_of_pytest_that_is_misspelled(
    analyzed: Analyzed, tmp_path: Path, file: str, text: str, meant: str
) -> None:
    analyzed("def test_a(): pass\n")
    (tmp_path / file).write_text(text)
    with pytest.raises(LoadError, match="pytest has no setting") as caught:
        analyzed("def test_a(): pass\n")
    assert (caught.value.reason, caught.value.hint) == ("unknown-setting", f"did you mean {meant!r}?")
    assert file in f"{caught.value.message} {caught.value.where}"
