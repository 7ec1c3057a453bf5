"""What a build_test and a build_agreement declare, from their build file to their actions; nothing runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bkrules.analysis.runs import Runs
from bkrules.build.analysis import analyze_patterns, selected
from bkrules.build.selection import Selection
from bkrules.commands.expectations import recording
from bkrules.declarative.seen import BuildRequest
from bkrules.errors import BkError, LoadError
from bkrules.model.action import Action, Output, Source, Text
from bkrules.model.parameters import CompareBuilds, parameters_of

TOOLS = ("buildkitd", "buildctl", "registry", "runc", "rootlesskit")
WORKSPACE = "from bkrules import host_binary, workspace\nworkspace(name = 'test')\n" + "".join(
    f"host_binary(name = {name!r}, binary = 'cat')\n" for name in TOOLS
)
BUILD = """from bkrules import build_agreement, build_test, filegroup, genrule, glob, host_binary, image, image_mirror, worker
image(name = "small", files = {{}})
image(name = "other", noise = {{"a": 1}})
image_mirror(name = "mirror", images = {{"docker.io/library/small:latest": ":small"}})
host_binary(name = "box", binary = "cat")
genrule(name = "made", outs = ["Made"], cmd = ["$(location :box)", "Dockerfile"], tools = [":box"])
genrule(name = "two", outs = ["a", "b"], cmd = ["$(location :box)"], tools = [":box"])
filegroup(name = "group", srcs = glob(["app/**"]))
worker(name = "oci", plugin = "oci")
worker(name = "rootless", plugin = "rootless")
{rule}(name = "m", mirror = ":mirror", {more})
"""
HOLDS = 'expect = {"files": {"/a": "text"}}'
WORKERS = 'workers = [":oci", ":rootless"]'
Analyzed = Callable[..., dict[str, Action]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package p of a workspace, with a Dockerfile and a context."""
    (tmp_path / "WORKSPACE.py").write_text(WORKSPACE)
    found = tmp_path / "p"
    for name, text in {"Dockerfile": "FROM scratch\n", "app/main.py": "1\n", "app/.hidden": "", "top.txt": ""}.items():
        (found / name).parent.mkdir(parents=True, exist_ok=True)
        (found / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return found


@pytest.fixture
def analyzed(folder: Path) -> Analyzed:
    """The cells of a target with these attributes, by their names."""

    def analyze(more: str = HOLDS, rule: str = "build_test", workers: str = WORKERS) -> dict[str, Action]:
        (folder / "BUILD.py").write_text(BUILD.format(rule=rule, more=", ".join([workers, more])))
        actions = analyze_patterns(".", ["//p:m"], only_tests=True).wanted().values()
        return {action.cell.name: action for action in actions if action.cell}

    return analyze


def request(action: Action) -> BuildRequest:
    """What the cell of an action is asked to build."""
    text = dict(action.inputs)["src/.bk/build.json"]
    assert isinstance(text, Text)
    return BuildRequest.parse(json.loads(text.data))


def files(action: Action) -> list[str]:
    return [path for path, _ in action.inputs if path.startswith(("src/context/", "src/dockerfile/"))]


def test_there_is_a_cell_for_each_worker_and_axis_value(analyzed: Analyzed) -> None:
    axes = 'axes = {"python": {"3.11": {"build_args": {"PYTHON": "3.11"}}, "none": {}}}'
    assert list(analyzed(f"{HOLDS}, {axes}")) == [
        f"test_build/worker={worker}/python={python}" for worker in ("oci", "rootless") for python in ("3.11", "none")
    ]


def test_a_cell_has_the_dockerfile_the_context_and_the_request(analyzed: Analyzed) -> None:
    more = (
        'context = glob(["app/**"]) + [":made", ":group"], build_args = {"A": "b"}, target = "last", platform = "linux/amd64", '
        'expect = {"files": {"/a": "text", "/b": True}, "modes": {"/a": "755"}, "cached": True}'
    )
    cell = analyzed(more)["test_build/worker=oci"]
    assert files(cell) == ["src/context/Made", "src/context/app/main.py", "src/dockerfile/Dockerfile"]
    assert dict(cell.inputs)["src/dockerfile/Dockerfile"] == Source("p/Dockerfile")
    assert request(cell) == BuildRequest(
        filename="Dockerfile",
        expect={"files": {"/a": "text", "/b": True}, "modes": {"/a": "0755"}, "cached": True},
        target="last",
        platform="linux/amd64",
        build_args={"A": "b"},
        contents=("/a",),
        twice=True,
    )
    assert "seen.json" in cell.outputs


def test_the_key_has_the_code_that_builds_and_judges(analyzed: Analyzed) -> None:
    cell = analyzed()["test_build/worker=oci"]
    own = [path for path, _ in cell.inputs if path.startswith("bkrules/declarative/")]
    assert [path.rpartition("/")[2] for path in own] == [
        *("cell.py", "expectations.py", "observe.py", "rootfs.py", "seen.py"),
    ]


def test_the_root_of_the_context_may_be_a_folder_and_the_dockerfile_another(analyzed: Analyzed, folder: Path) -> None:
    (folder / "app/Dockerfile.dev").write_text("FROM scratch\n")
    (folder / "app/Dockerfile.dev.dockerignore").write_text("*\n")
    more = f'context = glob(["app/**"]), root = "app", dockerfile = "app/Dockerfile.dev", {HOLDS}'
    assert files(analyzed(more)["test_build/worker=oci"]) == [
        "src/context/Dockerfile.dev",
        "src/context/Dockerfile.dev.dockerignore",
        "src/context/main.py",
        "src/dockerfile/Dockerfile.dev",
        "src/dockerfile/Dockerfile.dev.dockerignore",
    ]


def test_a_dockerfile_may_be_made(analyzed: Analyzed) -> None:
    cell = analyzed(f'dockerfile = ":made", {HOLDS}')["test_build/worker=oci"]
    assert dict(cell.inputs)["src/dockerfile/Made"] == Output("//p:made Genrule", "Made")


def test_a_frontend_is_an_image_of_the_mirror(analyzed: Analyzed) -> None:
    cell = analyzed(f'frontend = ":small", {HOLDS}')["test_build/worker=oci"]
    assert request(cell).frontend == "docker.io/library/small:latest"


def test_a_file_of_expectations_counts_by_what_it_says(analyzed: Analyzed, folder: Path) -> None:
    (folder / "m.json").write_text('{"modes": {"/a": "755"}, "user": "me"}')
    before = analyzed('expect = "m.json"')["test_build/worker=oci"]
    assert request(before).expect == {"modes": {"/a": "0755"}, "user": "me"}
    (folder / "m.json").write_text('{\n  "user": "me",\n  "modes": {"/a": "0755"}\n}\n')
    assert analyzed('expect = "m.json"')["test_build/worker=oci"] == before


def test_cells_that_record_share_their_key_with_those_of_an_agreement(analyzed: Analyzed, folder: Path) -> None:
    agreement = analyzed("", "build_agreement")["test_build/worker=oci"]
    (folder / "BUILD.py").write_text(BUILD.format(rule="build_test", more=f'{WORKERS}, expect = "new.json"'))
    actions = analyze_patterns(".", ["//p:m"], only_tests=True, change=recording).wanted().values()
    assert agreement in [action for action in actions if action.cell]


def test_an_agreement_compares_all_its_cells(analyzed: Analyzed) -> None:
    expected = 'expected = [{"worker": "root*", "what": "mode", "path": "/proc"}]'
    axes = 'axes = {"a": {"x": {}, "y": {"target": "t"}}}'
    cells = analyzed(f"{axes}, {expected}", "build_agreement")
    comparison = cells.pop("agreement/worker=all")
    assert parameters_of(comparison, CompareBuilds) == CompareBuilds(
        ("oci/a=x", "oci/a=y", "rootless/a=x", "rootless/a=y"),
        tuple({"worker": worker, "a": a} for worker in ("oci", "rootless") for a in "xy"),
        ({"worker": "root*", "what": "mode", "path": "/proc"},),
    )
    assert comparison.dependencies == tuple(sorted(action.id for action in cells.values()))


def test_a_suite_may_have_them(folder: Path) -> None:
    more = f'{WORKERS})\ntest_suite(name = "s", tests = [":m"]'
    text = BUILD.format(rule="build_agreement", more=more).replace("image_mirror,", "image_mirror, test_suite,", 1)
    (folder / "BUILD.py").write_text(text)
    wanted = analyze_patterns(".", ["//p:s"], only_tests=True).wanted().values()
    assert [action.cell.name for action in wanted if action.cell][-1] == "agreement/worker=all"


def test_runs_are_compared_each_with_its_own(folder: Path) -> None:
    (folder / "BUILD.py").write_text(BUILD.format(rule="build_agreement", more=WORKERS))
    wanted = analyze_patterns(".", ["//p:m"], only_tests=True, runs=Runs(2)).wanted()
    for run in (1, 2):
        assert wanted[f"//p:m agreement/worker=all run {run}"].dependencies == tuple(
            f"//p:m test_build/worker={worker} run {run}" for worker in ("oci", "rootless")
        )


def test_a_selected_comparison_brings_its_cells_and_a_cell_comes_alone(folder: Path) -> None:
    (folder / "BUILD.py").write_text(BUILD.format(rule="build_agreement", more=WORKERS))
    analysis = analyze_patterns(".", ["//p:m"], only_tests=True)

    def names(text: str) -> list[str]:
        wanted = selected(analysis, Selection((text,))).wanted().values()
        return [action.cell.name for action in wanted if action.cell]

    every = ["test_build/worker=oci", "test_build/worker=rootless", "agreement/worker=all"]
    assert names("agreement") == every
    assert names("worker=oci") == every[:1]


BAD = [
    ("expect = 3", "bad-attribute", "expect"),
    ('expect = {"file": {}}', "bad-expectation", "expect"),
    ('expect = {"modes": {"/a": None}}', "bad-expectation", "expect"),
    ('expect = "none.json"', "unknown-label", "expect"),
    ('expect = "app"', "unknown-label", "expect"),
    ('expect = ":made"', "wrong-kind", "expect"),
    ('expect = "a b"', "bad-attribute", "expect"),
    ('expect = "top.txt"', "bad-expectation", "p/top.txt:1"),
    (f'{HOLDS}, dockerfile = "None"', "unknown-label", "dockerfile"),
    (f'{HOLDS}, dockerfile = ":two"', "bad-attribute", "dockerfile"),
    (f'{HOLDS}, dockerfile = ":mirror"', "wrong-kind", "dockerfile"),
    (f'{HOLDS}, context = ["none.txt"]', "unknown-label", "context"),
    (f'{HOLDS}, context = ["top.txt"], root = "app"', "bad-path", "context"),
    (f'{HOLDS}, root = "../.."', "bad-path", "root"),
    (f'{HOLDS}, build_args = {{"A": 1}}', "bad-attribute", "build_args"),
    (f'{HOLDS}, build_args = {{"A=B": "1"}}', "bad-attribute", "build_args"),
    (f'{HOLDS}, platform = "linux/amd64,linux/arm64"', "bad-attribute", "platform"),
    (f"{HOLDS}, target = 3", "bad-attribute", "target"),
    (f'{HOLDS}, frontend = ":other"', "not-in-mirror", "frontend"),
    (f'{HOLDS}, frontend = ":mirror"', "wrong-kind", "frontend"),
    (f'{HOLDS}, axes = {{"a": {{"b": "latest"}}}}', "bad-axis", "axes"),
    (f'{HOLDS}, axes = {{"a": {{"b": {{"build_arg": {{}}}}}}}}', "bad-axis", "axes"),
    (f'{HOLDS}, axes = {{"a": {{"b": {{"build_args": "x"}}}}}}', "bad-axis", "axes"),
    (f'{HOLDS}, axes = {{"a": {{"b": {{"flags": {{}}, "value": "x"}}}}}}', "bad-axis", "axes"),
    (f'{HOLDS}, axes = {{"a": {{"b": {{"flags": {{}}, "target": "x"}}}}}}', "bad-axis", "axes"),
    (f'{HOLDS}, isolation = "worker"', "bad-attribute", "isolation"),
    (f'{HOLDS}, isolation = "none"', "bad-attribute", "isolation"),
    (f"{HOLDS}, records = True", "unknown-attribute", "records"),
    (f"{HOLDS}, tests = []", "unknown-attribute", "tests"),
]


def test_a_file_that_is_missing_can_be_written(analyzed: Analyzed, folder: Path) -> None:
    with pytest.raises(LoadError) as caught:
        analyzed('expect = "new.json"')
    assert "`bk test --update_expectations //p:m` writes it" in caught.value.hint
    with pytest.raises(LoadError) as caught:
        (folder / "BUILD.py").write_text(BUILD.format(rule="build_test", more=f'{WORKERS}, expect = "app"'))
        analyze_patterns(".", ["//p:m"], only_tests=True, change=recording)
    assert (caught.value.reason, "cannot read p/app" in caught.value.message) == ("missing-file", True)


def test_without_expectations_the_build_must_pass(analyzed: Analyzed) -> None:
    for more in ("", "expect = {}"):
        cell = analyzed(more)["test_build/worker=oci"]
        assert request(cell) == BuildRequest(filename="Dockerfile")


@pytest.mark.parametrize(("more", "reason", "where"), BAD)
def test_mistakes_are_shown_where_they_are(analyzed: Analyzed, more: str, reason: str, where: str) -> None:
    with pytest.raises(LoadError) as caught:
        analyzed(more)
    assert (caught.value.reason, where in caught.value.where) == (reason, True)


@pytest.mark.parametrize(
    ("more", "workers", "reason", "where"),
    [
        ("", 'workers = [":oci"]', "empty-matrix", "workers"),
        ("", "workers = []", "empty-matrix", "workers"),
        ('expected = [{"what": "modes"}]', WORKERS, "bad-entry", "expected"),
        ('expected = [{"worker": "oci"}]', WORKERS, "bad-entry", "expected"),
        ('expected = [{"worker": "oki", "what": "mode"}]', WORKERS, "bad-entry", "expected"),
        ('expected = [{"axis": "a", "what": "mode"}]', WORKERS, "bad-entry", "expected"),
        ('expected = {"what": "mode"}', WORKERS, "bad-attribute", "expected"),
        ('expect = {"user": ""}', WORKERS, "unknown-attribute", "expect"),
        ('axes = {"path": {"a": {}}}', WORKERS, "bad-axis", "axes"),
    ],
)
def test_mistakes_of_an_agreement(analyzed: Analyzed, more: str, workers: str, reason: str, where: str) -> None:
    with pytest.raises(LoadError) as caught:
        analyzed(more, "build_agreement", workers)
    assert (caught.value.reason, where in caught.value.where) == (reason, True)


@pytest.mark.parametrize("text", ["{", "[]", '{"user": "a", "user": "b"}', "[" * 100_000, "\x00"])
def test_a_file_of_expectations_that_is_none(analyzed: Analyzed, folder: Path, text: str) -> None:
    (folder / "m.json").write_text(text)
    with pytest.raises(LoadError) as caught:
        analyzed('expect = "m.json"')
    assert caught.value.reason == "bad-expectation"
    assert "p/m.json" in f"{caught.value.message} {caught.value.where}"


@pytest.mark.parametrize(
    ("rule", "more", "reason"), [("build_test", HOLDS, "no-file"), ("build_agreement", "", "nothing-ran")]
)
def test_only_a_build_test_with_a_file_can_be_updated(folder: Path, rule: str, more: str, reason: str) -> None:
    (folder / "BUILD.py").write_text(BUILD.format(rule=rule, more=f"{WORKERS}, {more}"))
    with pytest.raises(BkError) as caught:
        analyze_patterns(".", ["//p:m"], only_tests=True, change=recording)
    assert caught.value.reason == reason
