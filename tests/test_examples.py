"""Every code block of the documentation is run or checked; what no other test runs is loaded by bk here, or imported."""

from __future__ import annotations

import ast
import re
import types
from collections.abc import Mapping
from pathlib import Path

import pluggy
import pytest
from examples import HERE, NOT_RUN, RUN, SHOWN, Block, blocks, check

import bkrules
from bkrules import cli, plugin
from bkrules.commands import rc
from bkrules.plugin import spec
from bkrules.plugin.checks import checked_workers, hooks_of
from bkrules.rules import RULES
from bkrules.testing import pytest_plugin
from bkrules.testing.sandbox import Sandbox

ALL = blocks()
DEFAULTS = {
    "test_matrix": {
        "tests": '["test_example.py"]',
        "workers": '["//targets:oci"]',
        "mirror": '"//targets:mirror"',
    },
    "build_agreement": {"workers": '["//targets:oci", "//targets:rootless"]', "mirror": '"//targets:mirror"'},
    "go_binary": {"module": '"github.com/moby/buildkit"', "version": '"v0.34.2"', "mod": '"go.mod"'},
}
"""What `...` stands for in an example: attributes that the rule requires."""
NAMES = {
    "HARNESS": '{"oci": "oci"}',
    "BUILDKITD": '{"module": "github.com/moby/buildkit", "version": "v0.34.2", "package": "cmd/buildkitd", "mod": "go.mod"}',
}
"""Values that an example uses and the reader knows from its page."""
AROUND = {
    "docs/build-files.md": {"lib/BUILD.py": "", "hello/tests/test_one.py": "def test_one(): ...\n"},
    "docs/go-tests.md": {"example/api.go": "package api\n"},
    "docs/build-tools.md": {
        "example/third_party/buildkit/a.go": "package a\n",
        "example/third_party/buildkit/vendor/modules.txt": "",
    },
    "docs/modules.md": {
        "images/WORKSPACE.py": "from bkrules import workspace\nworkspace(name = 'our_images')\n",
        "images/base/BUILD.py": "from bkrules import image\nimage(name = 'debian')\n",
        "images/macros.py": "from bkrules import image\ndef standard_image(name, files):\n    image(name = name, files = files)\n",
    },
}
"""The files that a page describes in words."""
MODULES = {"docs/modules.md": ["--override_module=our_images=images"]}
FIXTURES = {"request", "tmp_path", "monkeypatch", "capsys"}
"""Fixtures of pytest."""


def checked_here(language: str) -> list[Block]:
    """Return the blocks of a language that this file checks."""
    return [one for one in ALL if one.language == language and check(one).endswith(HERE)]


def test_every_block_is_run_or_checked() -> None:
    """`python tests/examples.py` lists the test of each block. For a new block, add a test or a reason to `tests/examples.py`."""
    assert len(ALL) > 200
    assert [str(one) for one in ALL if not check(one)] == []


def test_the_lists_of_examples_are_true(repository: Path) -> None:
    """Each entry is for a block, and names a test that knows the page or has the same words."""
    for table in (RUN, SHOWN, NOT_RUN):
        for (page, start), entry in table.items():
            found = [one for one in ALL if one.page == page and one.entry(table) == entry]
            assert found, (page, start)
            if isinstance(entry, tuple):
                test, words = entry
                assert any(words in one.text for one in found), (page, start)
                assert words in (repository / test).read_text(), test
            elif table is RUN:
                assert (repository / entry).is_file(), entry


def filled(tree: ast.Module) -> ast.Module:
    """Put attributes in the places of `...`, and a name where an example has none."""
    for call in ast.walk(tree):
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in RULES):
            continue
        given = {one.arg: one for one in call.keywords}
        dots = any(isinstance(one, ast.Constant) and one.value is ... for one in call.args)
        call.args = [one for one in call.args if not (isinstance(one, ast.Constant) and one.value is ...)]
        more = {"name": '"example"', **DEFAULTS[call.func.id]} if dots else {}
        for name, one in given.items():
            if isinstance(one.value, ast.Constant) and one.value.value is ...:
                one.value = ast.parse(DEFAULTS[call.func.id][str(name)], mode="eval").body
                more |= {"version": DEFAULTS[call.func.id]["version"]} if name == "module" else {}
        call.keywords += [
            ast.keyword(name, ast.parse(text, mode="eval").body) for name, text in more.items() if name not in given
        ]
    return tree


def files(block: Block) -> dict[str, str]:
    """Return the files that a block shows: those that it names, and else one build file and one with tests."""
    parts = re.split(r"^# (\S+\.py)\n", block.text, flags=re.MULTILINE)
    named = dict(zip(parts[1::2], parts[2::2], strict=True))
    tree = filled(ast.parse(parts[0]))
    tests = [node for node in tree.body if isinstance(node, ast.FunctionDef) or is_import_of_tests(node)]
    rest = [node for node in tree.body if node not in tests]
    if tests:
        named["test_example.py"] = ast.unparse(ast.Module(tests, []))
    if rest:
        missing = [name for name in NAMES if re.search(rf"\b{name}\b", block.text)]
        values = [f"{name} = {NAMES[name]}\n" for name in missing]
        used = [name for name in (*RULES, *bkrules.FUNCTION_NAMES) if re.search(rf"\b{name}\(", block.text)]
        imports = "" if "from bkrules import" in parts[0] or not used else f"from bkrules import {', '.join(used)}\n"
        named["BUILD.py"] = imports + "".join(values) + ast.unparse(ast.Module(rest, []))
    return named


def is_import_of_tests(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and str(node.module).startswith("bkrules.testing")


def is_plugin(block: Block) -> bool:
    return "hookimpl" in block.text or "def preflight" in block.text


@pytest.fixture
def workspace(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace with the targets of this repository, in which bk runs."""
    (tmp_path / "WORKSPACE.py").write_text((repository / "WORKSPACE.py").read_text())
    (tmp_path / "targets").symlink_to(repository / "targets")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("block", [one for one in checked_here("python") if not is_plugin(one)], ids=str)
def test_bk_loads_the_build_files(block: Block, workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = files(block)
    for name, text in {**AROUND.get(block.page, {}), **found}.items():
        path = workspace / name if "/" in name or name == "WORKSPACE.py" else workspace / "example" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name, text in found.items():
        if name.endswith("BUILD.py"):
            package = Path(name).parent.name or "example"
            assert cli.main(["query", f"//{package}:all", *MODULES.get(block.page, ())]) == 0, capsys.readouterr().err
        elif not name.startswith("WORKSPACE"):
            check_tests(ast.parse(text))


def check_tests(tree: ast.Module) -> None:
    """Fail for a test whose fixtures do not exist, and for what its sandbox does not have."""
    known = {*FIXTURES, *vars(pytest_plugin)}
    for test in (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")):
        assert [one.arg for one in test.args.args if one.arg not in known] == []
        used = [
            one.attr
            for one in ast.walk(test)
            if isinstance(one, ast.Attribute) and isinstance(one.value, ast.Name) and one.value.id == "sandbox"
        ]
        assert [name for name in used if name not in {*vars(Sandbox), *Sandbox.__annotations__}] == []


@pytest.mark.parametrize("block", [one for one in checked_here("python") if is_plugin(one)], ids=str)
def test_python_imports_the_plugins(block: Block) -> None:
    """Their hooks have the arguments that bk gives them, and their workers can be registered."""
    module = types.ModuleType("example")
    names: Mapping[str, object] = {} if "import" in block.text else fragments()
    vars(module).update(names)
    exec(compile(block.text, str(block), "exec"), vars(module))
    if "hookimpl" not in block.text:
        return
    manager = pluggy.PluginManager(spec.GROUP)
    manager.add_hookspecs(spec)
    workers: list[object] = []
    for hook in hooks_of(manager, module):
        if hook == "bk_register_workers":
            vars(module)[hook](workers.append)
    assert len(checked_workers(workers)) == ("bk_register_workers" in block.text)


def fragments() -> dict[str, object]:
    """Return the names that a part of a plugin uses: those that it may import, and the worker of the tutorial."""
    (tutorial,) = (one for one in ALL if one.page == "docs/own-worker.md" and is_plugin(one))
    names: dict[str, object] = dict(vars(plugin))
    exec(compile(tutorial.text, str(tutorial), "exec"), names)
    return names


@pytest.mark.parametrize("block", checked_here("text"), ids=str)
def test_bk_parses_the_options(block: Block, workspace: Path) -> None:
    (workspace / ".bkrc").write_text(block.text)
    rc.RcFiles(cli._parser(cli.MODULES)[1], rc.read(str(workspace), None, ()))
