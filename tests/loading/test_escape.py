"""The hook behind the list of syntax. These tests leave the list out, as if a trick of Python had got past it."""

from __future__ import annotations

import builtins
import gc
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from bkrules.errors import LoadError
from bkrules.loading import compilation, escape, runtime, syntax
from bkrules.loading.loader import load
from bkrules.loading.package import Package
from bkrules.model.rule import Rule

SUBCLASSES = "[c for c in ().__class__.__base__.__subclasses__() if c.__name__ == {!r}][0]"
MODULE = f"{SUBCLASSES.format('_wrap_close')}.__init__.__globals__"
TRICKS = [
    "open('/etc/hostname')",
    "import json.tool",
    "exec('1')",
    "eval('1')",
    "compile('1', '', 'eval')",
    "__import__('os').listdir('/')",
    "input()",
    "breakpoint()",
    "len.__self__.open('/etc/hostname')",
    "'{0.__code__}'.format(thing)",
    "'{a.__code__}'.format_map({'a': lambda: 1})",
    "(lambda: 1).__code__",
    "(i for i in []).gi_frame.f_code",
    "(i for i in []).gi_code",
    "try: 1 / 0\nexcept Exception as error: error.__traceback__.tb_frame.f_globals",
    "try: 1 / 0\nexcept Exception as error: error.__traceback__.tb_frame",
    "try: open('/etc/hostname')\nexcept BaseException: pass",
    "class A:\n  def __del__(self): open('/etc/hostname')\nA()",
    "class A:\n  def __repr__(self): return open('/etc/hostname').read()\nstr(A())",
    "match thing:\n  case object(__code__ = code): pass",
    "def f(a: open('/etc/hostname')): pass",
    "f = lambda a = open('/etc/hostname'): a",
    "x = f'{open(\"/etc/hostname\")!r}'",
    "@(lambda f: open('/etc/hostname'))\ndef f(): pass",
    "[*map(open, ['/etc/hostname'])]",
    "sorted(['/etc/hostname'], key = open)",
    "'a'.encode('rot13')",
    f"{SUBCLASSES.format('FileLoader')}('x', '/etc/hostname').get_data('/etc/hostname')",
    f"{MODULE}['system']('true')",
    f"{MODULE}['listdir']('/')",
    f"{SUBCLASSES.format('Popen')}(['true'])",
    f"{SUBCLASSES.format('socket')}()",
]
# What only the syntax refuses: to look at what is in memory already is no event.
SILENT = [
    "(lambda: 1).__globals__",
    f"{MODULE}['environ']",
    "().__class__.__base__.__subclasses__()",
    "id(1)",
    "hash('a')",
]


@pytest.fixture
def loose(monkeypatch: pytest.MonkeyPatch, rules: dict[str, Rule]) -> Callable[[str], Package]:
    """Loads with all of Python's syntax, all of its builtins, and no checks of operators and methods."""
    import subprocess

    assert {
        subprocess.__name__,
        socket.__name__,
        os.__name__,
    } <= sys.modules.keys()  # what the tricks look for is loaded

    def check(_tree: object, _file: str) -> None:
        pass

    scope = {**vars(builtins), **runtime.Runtime()._checks(), "__function": lambda _key: lambda body: body}
    monkeypatch.setattr(syntax, "check", check)
    monkeypatch.setattr(compilation, "compiled", lambda tree, file: compile(tree, file, "exec", dont_inherit=True))
    original = runtime.Runtime.__init__

    def init(self: runtime.Runtime) -> None:
        original(self)
        self.scope = scope

    monkeypatch.setattr(runtime.Runtime, "__init__", init)
    return lambda text: load(f"from bkrules import thing\n{text}\n".encode(), "pkg/BUILD.py", "pkg", rules)


@pytest.mark.parametrize("trick", TRICKS)
def test_a_trick_that_gets_past_the_syntax_is_caught(trick: str, loose: Callable[[str], Package]) -> None:
    with pytest.raises(LoadError) as caught:
        loose(f"\n{trick}")
    assert caught.value.reason == "escape"
    assert caught.value.where in [f"pkg/BUILD.py:{3 + number}" for number in range(trick.count("\n") + 1)]


@pytest.mark.parametrize("trick", [*TRICKS, *SILENT])
def test_the_syntax_refuses_each_trick_too(trick: str, rules: dict[str, Rule]) -> None:
    with pytest.raises(LoadError) as caught:
        load(f"from bkrules import thing\n\n{trick}\n".encode(), "pkg/BUILD.py", "pkg", rules)
    assert caught.value.reason.startswith(("forbidden-", "unknown-name"))


def test_what_does_not_escape_is_not_caught(loose: Callable[[str], Package]) -> None:
    package = loose("class A:\n  x = [n for n in range(3)]\nthing(name = 'a', words = [str(n) for n in A.x])")
    assert package.targets["a"].attributes["words"] == ("0", "1", "2")


def test_the_hook_rests_before_and_after(loose: Callable[[str], Package], tmp_path: Path) -> None:
    with pytest.raises(LoadError):
        loose("open('x')")
    (tmp_path / "file").write_text("free")
    assert (lambda: 1).__code__.co_name == "<lambda>"
    assert gc.isenabled()


def test_other_threads_are_not_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = threading.Event()

    def other() -> None:
        (tmp_path / "file").write_text("free")
        written.set()

    def refuse(event: str, _frame: object) -> LoadError:
        return LoadError("escape", event)

    thread = threading.Thread(target=other)
    ready = threading.Event()
    original = thread.run
    monkeypatch.setattr(thread, "run", lambda: (ready.wait(10), original())[1])
    thread.start()
    code = compile("let_go()\nassert wait(10)", "x", "exec")
    escape.run(code, {"let_go": ready.set, "wait": written.wait}, refuse)
    thread.join()
    assert (tmp_path / "file").read_text() == "free"


def test_finalizers_of_others_are_not_run_meanwhile(rules: dict[str, Rule]) -> None:
    folder = tempfile.mkdtemp()

    class Cleans:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            os.rmdir(folder)

    Cleans()
    load(b"x = [[n] for n in range(100000)]", "pkg/BUILD.py", "pkg", rules)
    gc.collect()
    assert not os.path.exists(folder)


def test_one_hook_for_the_life_of_the_process(rules: dict[str, Rule], monkeypatch: pytest.MonkeyPatch) -> None:
    load(b"", "pkg/BUILD.py", "pkg", rules)
    added: list[object] = []
    monkeypatch.setattr(sys, "addaudithook", added.append)
    load(b"", "pkg/BUILD.py", "pkg", rules)
    assert added == []
