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
UNNAMED = "the plugin of the entry point 'bk_odd_"


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
    "raises without a word": ("raise RuntimeError", "cannot be loaded: RuntimeError\n"),
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
    "has a version that is no number": (WORKER + "BK_API = '1'", "it needs version '1' of the hooks"),
    "has a relative import": ("from .helper import flags", "attempted relative import with no known parent package"),
    "recurses at import": ("def f(): f()\nf()", "maximum recursion depth exceeded"),
    "raises what cannot be printed": (
        "class Odd(Exception):\n    def __str__(self): raise ValueError\nraise Odd",
        "cannot be loaded: Odd\n",
    ),
    "is no module": ("import sys\nsys.modules[__name__] = 7", "cannot be loaded: TypeError: vars()"),
    "hangs at import": (
        "while True:\n    try:\n        while True:\n            pass\n    except Exception:\n        pass\n",
        "it took longer than 0.2 s",
    ),
    "hangs in the hook": (
        WORKER.replace("register(Odd)", "import time; time.sleep(60)"),
        "longer than 0.2 s\n  in bk_reg",
    ),
    "leaves a process": (
        f"import os\nos.posix_spawn('/bin/sleep', ['sleep', '1000'], {{}})\n{WORKER}",
        "it started a proc",
    ),
}
WRONGLY_INSTALLED: dict[str, tuple[dict[str, str], str]] = {
    "an object as its entry point": ({"value": "{module}:Odd"}, ":Odd' names an object"),
    "a call as its entry point": ({"value": "{module}:Odd()"}, ":Odd()' names an object"),
    "words as its entry point": ({"value": "two words"}, "its entry point 'two words' names no module"),
    "a path as its entry point": ({"value": "../odd.py"}, "its entry point '../odd.py' names no module"),
    "a module that is not there": ({"value": "no_such_module"}, "No module named 'no_such_module'"),
    "a newer bk as its requirement": (
        {"metadata": "Requires-Dist: bkrules>=9\n"},
        "it requires bkrules>=9, and this is bkrules",
    ),
    "a requirement that is none": (
        {"metadata": "Requires-Dist: bkrules>=x.y\n"},
        "its Requires-Dist 'bkrules>=x.y' cannot be read",
    ),
    "a marker that is none": (
        {"metadata": "Requires-Dist: bkrules>=0.1; moon == 'full'\n"},
        "its Requires-Dist \"bkrules>=0.1; moon == 'full'\" cannot be read",
    ),
}


def registers(hook: str, arguments: str) -> str:
    return f"{WORKER}\n@hookimpl\ndef {hook}(register):\n    register({arguments})\n"


BROKEN |= {
    "registers nothing as an axis key": (
        registers("bk_register_axis_keys", ""),
        "what bk_register_axis_keys does not take",
    ),
    "has an axis key with a space": (registers("bk_register_axis_keys", "'a b', int"), "'a b' cannot be the name of"),
    "has no function of an axis key": (registers("bk_register_axis_keys", "'a', 3"), "expand must be a function"),
    "has a command of two words": (registers("bk_register_commands", "'a b', 'x', int"), "'a b' cannot be the name of"),
    "has a command without help": (registers("bk_register_commands", "'a', '', int"), "has the help ''"),
    "has a command twice": (
        registers("bk_register_commands", "'a', 'x', int") + "    register('a', 'y', int)\n",
        "it registers 'a' twice in bk_register_commands",
    ),
    "reports outside": (registers("bk_register_reporters", "'../x.txt', str"), "'../x.txt' cannot be the name of"),
    "reports as bk": (registers("bk_register_reporters", "'test.xml', str"), "'test.xml' is a report of bk's own"),
    "has no rule": (registers("bk_register_rules", "'count', {}"), "'count' is no rule"),
    "has a runner that is none": (
        "from bkrules.rules.define import Rule\n"
        + registers("bk_register_rules", "Rule('a', 'x', {}, lambda context: ()), {'Count': 3}"),
        "the runner of Count must be a function",
    ),
    "raises in another hook": (
        registers("bk_register_rules", "1 / 0"),
        "ZeroDivisionError: division by zero\n  in bk_register_rules",
    ),
    "has a hook of modules in a worker": (
        WORKER.replace(
            "def tools(self): return ()", "def tools(self): return ()\n    @hookimpl\n    def bk_summary(self): pass"
        ),
        "its worker 'odd' implements bk_summary, which is a hook of modules, not of workers",
    ),
    "has an unknown hook in a worker": (
        WORKER.replace(
            "def tools(self): return ()", "def tools(self): return ()\n    @hookimpl\n    def bk_stat(self): pass"
        ),
        "did you mean 'bk_state'",
    ),
}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short bound for the code of plugins."""
    monkeypatch.setattr(manager, "guarded", functools.partial(guarded, 0.2))


@pytest.mark.parametrize("kind", [*BROKEN, *WRONGLY_INSTALLED])
def test_a_broken_plugin_is_named_and_the_others_stay(
    install: Install, request: pytest.FixtureRequest, kind: str
) -> None:
    if "hangs" in kind:
        request.getfixturevalue("quick")
    text, message = BROKEN.get(kind, (WORKER, ""))
    given, message = WRONGLY_INSTALLED.get(kind, ({}, message))
    install(text, **given)

    plugins = manager.load()

    assert sorted(plugins.workers) == OURS
    (broken,) = plugins.broken
    assert broken.error is plugins.fault_of("odd")
    assert str(broken.error).startswith("the plugin bk-odd 1.0 cannot be loaded: ")
    assert message in str(broken.error)
    assert getattr(broken.error, "exit_code", None) == 1
    assert manager.blamed(ValueError()) is None
    assert broken.title in plugins.owners.values() or kind in WRONGLY_INSTALLED, "a cell knows whose code raises"


@pytest.mark.parametrize("kind", [*BROKEN, *WRONGLY_INSTALLED])
def test_a_build_that_needs_it_ends_with_one_error_that_names_it(
    install: Install,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    kind: str,
) -> None:
    if "hangs" in kind:
        request.getfixturevalue("quick")
    install(BROKEN.get(kind, (WORKER, ""))[0], **WRONGLY_INSTALLED.get(kind, ({}, ""))[0])
    root = tmp_path / "workspace"
    root.mkdir()
    declared = 'from bkrules import worker, workspace\nworkspace(name = "w")\nworker(name = "odd", plugin = "odd")\n'
    (root / "WORKSPACE.py").write_text(declared)
    monkeypatch.chdir(root)

    assert cli.main(["build", "//:odd", f"--disk_cache={tmp_path}/cache"]) == 1

    said = capfd.readouterr()
    lines = [line for line in said.err.splitlines() if not line.startswith("  ")]
    assert len(lines) == 1
    assert lines[0].startswith("error: //:odd: the worker 'odd' is unusable: the plugin bk-odd 1.0 cannot be loaded: ")
    assert "Traceback" not in said.err
    assert said.out == ""


def test_there_are_enough_ways() -> None:
    assert len(BROKEN) + len(WRONGLY_INSTALLED) >= 30


@pytest.mark.parametrize(
    ("file", "data", "message"),
    [
        ("METADATA", b"", UNNAMED),
        ("METADATA", b"Name: \xff\nVersion: 1\n", UNNAMED),
        ("METADATA", None, UNNAMED),
        ("entry_points.txt", b"[bk]\nodd = \xff\n", ""),
        ("entry_points.txt", b"odd\n[bk\n", ""),
        ("entry_points.txt", None, ""),
    ],
)
def test_files_of_an_installer_that_are_damaged(install: Install, file: str, data: bytes | None, message: str) -> None:
    """Without a name it is named by its entry point; without entry points it is no plugin."""
    folder = install(WORKER) / "bk_odd-1.0.dist-info"
    (folder / file).unlink()
    if data is not None:
        (folder / file).write_bytes(data)

    plugins = manager.load()

    assert sorted(plugins.workers) == OURS
    assert len(plugins.broken) == bool(message)
    assert all(str(plugin.error).startswith(message) for plugin in plugins.broken)


def test_one_without_a_fault_is_used(install: Install) -> None:
    install(WORKER)

    plugins = manager.load()

    assert sorted(plugins.workers) == sorted([*OURS, "odd"])
    assert plugins.distributions["odd"] == "bk-odd 1.0"
    assert plugins.broken == ()


def test_a_process_that_it_starts_does_not_outlive_the_import(install: Install, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    start = "import os\npid = os.posix_spawn('/bin/sleep', ['sleep', '1000'], {})\n"
    install(f"{start}import pathlib\npathlib.Path({str(note)!r}).write_text(str(pid))\n{WORKER}")

    (broken,) = manager.load().broken

    assert "the plugin bk-odd 1.0 cannot be loaded: it started a process" in str(broken.error)
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


@pytest.mark.parametrize(
    "wanted",
    [
        *("bkrules>=9", "bkrules (>=9)", "bkrules<0.1", "bkrules[dev]>=9", "BKRULES >= 9"),
        *('bkrules>=9; python_version > "3"', 'bkrules>=9 ; extra == ""'),
    ],
)
def test_another_version_of_bk_is_refused(install: Install, wanted: str) -> None:
    install(WORKER, metadata=f"Requires-Dist: {wanted}\n")
    (broken,) = manager.load().broken
    assert f"it requires {wanted}, and this is bkrules" in str(broken.error)


@pytest.mark.parametrize(
    "wanted",
    [
        *("bkrules>=0.1", "bkrules-other>=9", "bkrules"),
        *('bkrules>=9; python_version < "3"', 'bkrules>=9 ; extra == "next"', 'bkrules>=9; os_name == "nt"'),
        'bkrules>=9; extra == "next" and python_version > "3"',
    ],
)
def test_a_requirement_that_is_met_or_does_not_hold_here(install: Install, wanted: str) -> None:
    """The markers of pip decide whether a requirement holds; nobody asked for an extra."""
    install(WORKER, metadata=f"Requires-Dist: {wanted}\n")
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
