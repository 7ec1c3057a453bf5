"""Plugins that are broken in every way: each is named, and the workers of the others stay usable."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bkrules import cli
from bkrules.errors import UsageError
from bkrules.plugin import manager
from bkrules.plugin.guard import guarded

OURS = ["containerd", "containerd+stargz", "dockerd", "oci", "rootless"]
WORKER = """
from contextlib import contextmanager
from dataclasses import dataclass
from bkrules.plugin import Worker, hookimpl

@dataclass(frozen=True)
class Odd(Worker):
    name = "odd"
    def tools(self): return ()
    def configuration(self, mirror): return {}
    def start(self, daemons): raise NotImplementedError

@hookimpl
def bk_register_workers(register):
    register(Odd)
"""
Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a distribution by writing what an installer would write, where this process finds it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    made: list[str] = []

    def write(text: str, *, value: str = "", entry: str = "odd", name: str = "bk-odd", metadata: str = "") -> Path:
        module = f"bk_odd_{os.getpid()}_{len(made)}_{tmp_path.name}"
        made.append(module)
        (tmp_path / f"{module}.py").write_text(text)
        info = tmp_path / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{metadata}")
        (info / "entry_points.txt").write_text(f"[bk]\n{entry} = {value.format(module=module) or module}\n")
        manager.load.cache_clear()
        return tmp_path

    manager.load.cache_clear()
    yield write
    for module in made:
        sys.modules.pop(module, None)
    manager.block(())
    manager.load.cache_clear()


def renamed(name: str) -> str:
    return WORKER.replace('name = "odd"', f"name = {name}")


BROKEN = {
    "raises at import": ("raise ValueError('broken')", "ValueError: broken"),
    "lacks a module": ("import no_such_module", "No module named 'no_such_module'"),
    "does not parse": ("def", "SyntaxError"),
    "exits at import": ("import sys\nsys.exit(0)", "SystemExit: 0"),
    "exits in the hook": (WORKER.replace("register(Odd)", "raise SystemExit(0)"), "SystemExit: 0\n  in bk_register_w"),
    "raises in the hook": (
        WORKER.replace("register(Odd)", "1 / 0"),
        "ZeroDivisionError: division by zero\n  in bk_reg",
    ),
    "raises what is no Exception": ("raise BaseException('odd')", "BaseException: odd"),
    "registers an instance": (WORKER.replace("register(Odd)", "register(Odd())"), "registered Odd() as a worker"),
    "registers another class": (
        WORKER.replace("register(Odd)", "register(int)"),
        "registered <class 'int'> as a worker",
    ),
    "registers nothing": (WORKER.replace("register(Odd)", "register(None)"), "registered None as a worker"),
    "registers twice": (WORKER + "    register(Odd)\n", "registered two workers of the name 'odd'"),
    "has a slash in its name": (renamed("'a/b'"), "has the name 'a/b'"),
    "has a space in its name": (renamed("'a b'"), "has the name 'a b'"),
    "has an empty name": (renamed("''"), "has the name ''"),
    "has a line break in its name": (renamed("'odd\\n'"), "has the name 'odd\\n'"),
    "has a name beyond ASCII": (renamed("'\\u00f6dd'"), "has the name 'ödd'"),
    "has a number as a name": (renamed("7"), "has the name 7"),
    "has no name": (WORKER.replace('name = "odd"', "pass"), "has the name None"),
    "is abstract": (WORKER.replace("def tools(self): return ()", "pass"), "'odd' lacks the methods tools"),
    "is no dataclass": (WORKER.replace("@dataclass(frozen=True)", ""), "'odd' is no dataclass"),
    "has an unknown hook": (
        WORKER.replace("bk_register_workers", "bk_regster_workers"),
        "did you mean 'bk_register_workers'",
    ),
    "has wrong arguments": (
        WORKER.replace("(register)", "(registry)"),
        "its bk_register_workers has the argument 'registry'",
    ),
    "has no hook": ("X = 1", "implements no hook"),
    "forgot hookimpl": (WORKER.replace("@hookimpl", ""), "is not marked as a hook"),
    "needs newer hooks": (WORKER + "BK_API = 2", "it needs version 2 of the hooks, and this bk has version 1"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_plugin_is_named_and_the_others_stay(install: Install, kind: str) -> None:
    text, message = BROKEN[kind]
    install(text)

    plugins = manager.load()

    assert sorted(plugins.workers) == OURS
    (broken,) = plugins.broken
    assert broken.error is plugins.fault_of("odd")
    assert str(broken.error).startswith("the plugin bk-odd 1.0 cannot be loaded: ")
    assert message in str(broken.error)
    assert getattr(broken.error, "exit_code", None) == 1


def test_one_without_a_fault_is_used(install: Install) -> None:
    install(WORKER)

    plugins = manager.load()

    assert sorted(plugins.workers) == sorted([*OURS, "odd"])
    assert plugins.distributions["odd"] == "bk-odd 1.0"
    assert plugins.broken == ()


def test_one_that_hangs_is_named(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager, "guarded", functools.partial(guarded, 0.2))
    install("while True:\n    try:\n        while True:\n            pass\n    except Exception:\n        pass\n")

    (broken,) = manager.load().broken

    assert "the plugin bk-odd 1.0 cannot be loaded: it took longer than 0.2 s" in str(broken.error)


def test_a_process_that_it_starts_does_not_outlive_the_import(install: Install, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    start = "import os\npid = os.posix_spawn('/bin/sleep', ['sleep', '1000'], {})\n"
    install(f"{start}import pathlib\npathlib.Path({str(note)!r}).write_text(str(pid))\n{WORKER}")

    (broken,) = manager.load().broken

    assert "the plugin bk-odd 1.0 cannot be loaded: it started a process" in str(broken.error)
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


def test_an_entry_point_names_a_module(install: Install) -> None:
    install(WORKER, value="{module}:Odd")
    (broken,) = manager.load().broken
    assert ":Odd' names an object" in str(broken.error)


@pytest.mark.parametrize("wanted", ["bkrules>=9", "bkrules (>=9)", "bkrules<0.1"])
def test_another_version_of_bk_is_refused(install: Install, wanted: str) -> None:
    install(WORKER, metadata=f"Requires-Dist: {wanted}\n")
    (broken,) = manager.load().broken
    assert f"it requires {wanted}, and this is bkrules" in str(broken.error)


def test_this_version_of_bk_is_taken(install: Install) -> None:
    install(WORKER, metadata="Requires-Dist: bkrules>=0.1\nRequires-Dist: bkrules-other>=9\n")
    assert "odd" in manager.load().workers


def test_only_the_name_that_two_plugins_have_is_unusable(install: Install) -> None:
    install(renamed("'oci'"))

    plugins = manager.load()

    assert sorted(plugins.workers) == sorted({*OURS} - {"oci"})
    assert "two plugins have a worker 'oci': bk-odd 1.0 and bk-worker-oci 0.1.0" in str(plugins.fault_of("oci"))


def test_a_blocked_plugin_is_not_imported(install: Install) -> None:
    install("raise ValueError('imported')")
    for name in ("odd", "bk-odd"):
        manager.block([name])
        (blocked,) = manager.load().broken
        assert str(blocked.error) == "the plugin bk-odd 1.0 is blocked by --noplugin"
    manager.block(["bk-od"])
    with pytest.raises(UsageError, match="no plugin 'bk-od' is installed\n  did you mean 'bk-odd'"):
        manager.load()


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run bk in a process that finds the plugins in `folder`."""
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from bkrules import cli; sys.exit(cli.main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_what_is_printed_at_import_does_not_break_json(install: Install) -> None:
    noise = "import os\nprint('printed')\nos.write(1, b'written')\nos.system('echo spoken')\n"
    done = run(install(noise + WORKER), "plugin", "list", "--json")

    assert done.returncode == 0, done.stderr
    (odd,) = [one for one in json.loads(done.stdout) if one["distribution"] == "bk-odd 1.0"]
    assert (odd["workers"], odd["hooks"], odd["error"]) == (["odd"], ["bk_register_workers"], "")
    assert all(word in done.stderr for word in ("printed", "written", "spoken"))


def test_the_list_shows_a_broken_plugin_and_goes_on(
    install: Install, repository: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository)
    install("import sys\nsys.exit(0)")

    assert cli.main(["plugin", "list"]) == 1
    output = capsys.readouterr().out
    assert "bk-odd 1.0: no workers\n" in output
    assert "  error: the plugin bk-odd 1.0 cannot be loaded: SystemExit: 0\n" in output
    assert "bk-worker-oci 0.1.0: oci\n" in output
    assert cli.main(["workers"]) == 0
    assert "warning: the plugin bk-odd 1.0 cannot be loaded" in capsys.readouterr().err
    assert cli.main(["plugin", "list", "--noplugin=odd"]) == 0
    assert "is blocked by --noplugin" in capsys.readouterr().out


def test_code_of_a_plugin_that_raises_elsewhere_is_named(install: Install) -> None:
    install(WORKER.replace("def tools(self): return ()", "def tools(self): return 1 / 0"))
    with pytest.raises(ZeroDivisionError) as caught:
        vars(manager.load().workers["odd"])["tools"](None)

    error = manager.blamed(caught.value)

    assert str(error).startswith("the plugin bk-odd 1.0 failed in tools: ZeroDivisionError: division by zero\n")
    assert manager.blamed(ValueError()) is None
