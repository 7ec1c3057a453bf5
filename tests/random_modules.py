"""Random test modules: what syntax proves, what it nearly proves, and what only pytest can tell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

HELPER = """
import functools
import unittest
from dataclasses import dataclass
from pathlib import Path
import pytest

CONSTANT = "constant"
PLACE = Path("x") / "y"
MADE = functools.partial(int, 3)
TEXTS = ["a", "b"]

def plain(value=1):
    return value

def decorate(function):
    @functools.wraps(function)
    def test_wrapped():
        return function()
    return test_wrapped

def vanish(function):
    return 3

@pytest.fixture
def calm():
    return 1

@pytest.fixture(params=[1, 2])
def doubled(request):
    return request.param

@pytest.fixture(autouse=True, params=["u", "v"])
def everywhere(request):
    return request.param

def test_imported():
    pass

class TestImported:
    def test_inside(self):
        pass

class Cases(unittest.TestCase):
    def test_case(self):
        pass

class Base:
    def test_base(self):
        pass

class Marked:
    __test__ = True
    def test_marked(self):
        pass

@dataclass(frozen=True)
class Value:
    text: str = "text"

class Below(Value):
    pass

def odd():
    pass
odd.__test__ = True

if len("a") == 1:
    later = calm
"""
NAMES = (
    *("CONSTANT", "PLACE", "MADE", "TEXTS", "plain", "decorate", "vanish", "calm", "doubled", "everywhere"),
    *("test_imported", "TestImported", "Cases", "Base", "Marked", "Value", "Below", "odd", "later"),
)
LITERALS = (
    *(
        "1",
        "-2",
        "2.5",
        "1e9",
        "True",
        "None",
        "'x'",
        "'a/b'",
        "'..'",
        "'c d'",
        "'é'",
        "'[x]'",
        "'a::b'",
        "''",
        "'Up'",
        "'up'",
    ),
    *(
        "'\\n'",
        "'\\0'",
        "'\\\\n'",
        "'\\ud800'",
        "b'by'",
        "b'\\xff'",
        "[1]",
        "(1, 2)",
        "{}",
        "{'k': 1}",
        "...",
        "2j",
        "'%s'" % ("n" * 101),
    ),
    *("'%s'" % ("m" * 100), "'-'", "'a-b'", "'a'", "'b'", "10", "'10'", "' '", "'🦊'", "'\\x7f'", "'x0'", "'a0'"),
)
VALUES = (
    *LITERALS,
    *LITERALS,
    "object()",
    "CONSTANT_HERE",
    "len('abc')",
    "pytest.param(1)",
    "pytest.param('p', id='named')",
    "print",
)


class Source:
    """A module that grows by one statement after the other. `wild` is how likely one is that syntax cannot judge."""

    def __init__(self, random: Random, wild: float) -> None:
        self.random = random
        self.wild = wild
        self.serial = 0

    def name(self, start: str = "test_") -> str:
        """A name that is new, most of the time."""
        if self.random.random() > 0.03:
            self.serial += 1
        return f"{start}{self.random.choice(['a', 'é', 'B', 'name_'])}{self.serial}"

    def pick(self, calm: Sequence[Callable[[], str]], wild: Sequence[Callable[[], str]]) -> str:
        """One of these."""
        return self.random.choice(wild if self.random.random() < self.wild else calm)()

    def text(self) -> str:
        """The whole module."""
        lines = ["import pytest"]
        if self.random.random() < 0.2:
            lines.insert(0, "from __future__ import annotations")
        lines += [self.imported() for _ in range(self.random.randrange(3))]
        if self.random.random() < 0.97:
            lines.append("CONSTANT_HERE = 7")
        lines += [self.statement() for _ in range(self.random.randrange(1, 7))]
        return "\n".join(lines) + "\n"

    def imported(self) -> str:
        """An import."""
        calm = [
            "import os",
            "import re, sys",
            "from pathlib import Path",
            "from pytest import mark, param",
            "import helper",
        ]
        calm += [
            "from helper import CONSTANT",
            "from helper import plain as renamed, Value",
            "import os.path",
            "from typing import Any",
        ]
        calm += [
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from helper import test_imported",
            "from helper import Below",
        ]
        wild = [
            f"from helper import {self.random.choice(NAMES)}",
            "from helper import *",
            "import pytest as other",
            "import unittest",
        ]
        wild += ["from unittest import TestCase", f"from helper import {self.random.choice(NAMES)} as {self.name()}"]
        wild += [
            "import helper as test_helper",
            "from requests import get",
            "from package import sub",
            "from package import hidden",
        ]
        return self.random.choice(wild if self.random.random() < self.wild else calm)

    def statement(self) -> str:
        """A statement of the module."""
        tests = [self.function] * 4 + [self.parametrized] * 3 + [self.test_class] * 3
        return self.pick([*tests, self.helper, self.fixture, self.constant, self.plain_class], [self.wild_statement])

    def wild_statement(self) -> str:
        """A statement whose effect syntax does not prove."""
        text = self.random.choice(WILD).replace("NAME", self.name())
        return text.replace("    BODY", self.function("    "))

    def function(self, indent: str = "", arguments: str = "") -> str:
        """A test."""
        form = self.random.choice(["def", "def", "def", "async def"])
        body = self.random.choice(
            ["pass", "assert 1", "x = [1]\n    assert x", "def test_inner(): yield\n    assert test_inner"]
        )
        if self.random.random() < self.wild * 0.2:
            body = self.random.choice(["yield", "yield 1", "return [(yield)]"])
        marks = [f"@pytest.mark.{self.random.choice(['slow', 'skip', 'xfail(reason=CONSTANT_HERE)', 'x(1, k=[2])'])}\n"]
        if self.random.random() < self.wild * 0.3:
            marks = [
                self.random.choice(
                    [
                        "@staticmethod\n",
                        "@helper.decorate\n",
                        "@helper.vanish\n",
                        "@pytest.fixture\n",
                        "@(lambda f: f)\n",
                    ]
                )
            ]
        text = f"{marks[0] if self.random.random() < 0.25 else ''}{form} {self.name()}({arguments}):\n    {body}"
        return "\n".join(indent + line for line in text.split("\n"))

    def sets(self, names: int) -> str:
        """The values of a parametrize."""
        pool = VALUES if self.random.random() < self.wild else LITERALS
        rows = []
        for _ in range(self.random.randrange(1, 5)):
            values = [self.random.choice(pool) for _ in range(names)]
            row = values[0] if names == 1 else f"({', '.join(values)})"
            if self.random.random() < 0.25:
                given = self.random.choice(
                    [
                        "",
                        f", id={self.random.choice(LITERALS[5:16])}",
                        ", marks=pytest.mark.skip",
                        ", marks=[mark_of_mine]",
                    ][: 3 + (self.random.random() < self.wild)]
                )
                row = f"pytest.param({', '.join(values)}{given})"
            rows.append(row)
        if self.random.random() < self.wild * 0.2:
            return self.random.choice(
                [
                    "range(2)",
                    "[]",
                    "CONSTANT_HERE",
                    f"[*{[1]}, 2]",
                    "sorted([2, 1])",
                    "{1, 2}",
                    "'ab'",
                    "(n for n in [1])",
                ]
            )
        around = self.random.choice(["[]", "()"])
        return f"{around[0]}{', '.join(rows)},{around[1]}"

    def parametrize(self, argument: str) -> str:
        """A mark that parametrizes."""
        ids = ""
        if self.random.random() < 0.2:
            ids = self.random.choice(
                [", ids=['one', 'two']", ", ids=['one']", ", ids=None", ", ids=[1, None]", ", ids=str", ", ids=[]"]
            )
        forms = [f"'{argument}'", f"['{argument}']", f"'{argument},'"]
        form = self.random.choices(forms, [8, 1, 1])[0]
        values = self.sets(1)
        if form != forms[0]:
            values = "[(1,), ['two'], pytest.param({})]"
        return f"pytest.mark.parametrize({form}, {values}{ids})"

    def parametrized(self, indent: str = "", first: str = "") -> str:
        """A test with parameters."""
        count = self.random.choice([1, 1, 2])
        marks = "".join(f"{indent}@{self.parametrize(f'p{number}')}\n" for number in range(count))
        if self.random.random() < 0.2:
            marks += f"{indent}@pytest.mark.parametrize('q, r', {self.sets(2)})\n"
            return (
                f"{marks}{self.function(indent, f'{first}q, r, ' + ', '.join(f'p{n}' for n in range(count)))}".replace(
                    "mark.slow", "mark.y"
                )
            )
        return f"{marks}{self.function(indent, first + ', '.join(f'p{number}' for number in range(count)))}"

    def test_class(self, indent: str = "", depth: int = 0) -> str:
        """A class of tests."""
        head = f"{indent}class {self.name('Test')}:"
        marks = ""
        inside = indent + "    "
        lines = []
        argument = ""
        if self.random.random() < 0.25:
            marks += f"{indent}@{self.parametrize('c')}\n"
            argument = ", c"
        if self.random.random() < 0.15:
            lines.append(
                f"{inside}pytestmark = {self.random.choice(['pytest.mark.g', '[pytest.mark.g, pytest.mark.h]'])}"
            )
        for _ in range(self.random.randrange(0, 4)):
            kind = self.random.randrange(5)
            if kind == 0:
                lines.append(f"{inside}def helper_{self.serial}(self): return 1")
            elif kind == 1 and depth < 2:
                lines.append(self.test_class(inside, depth + 1) if not argument else f"{inside}value_{self.serial} = 1")
            elif kind == 2 and not argument:
                lines.append(self.parametrized(inside, "self, "))
            else:
                lines.append(self.function(inside, f"self{argument}"))
            if self.random.random() < self.wild * 0.4:
                lines.append(
                    self.random.choice(
                        [
                            f"{inside}__test__ = {self.random.choice(['False', 'True'])}",
                            f"{inside}def __init__(self): pass",
                            f"{inside}if True:\n{self.function(inside + '    ', f'self{argument}')}",
                            f"{inside}{self.name()} = lambda self{argument}: None",
                            f"{inside}@staticmethod\n{inside}def {self.name()}({argument[2:]}): pass",
                            f"{inside}@property\n{inside}def {self.name()}(self): return 1",
                            f"{inside}@pytest.fixture(params=[1, 2], autouse=True)\n{inside}def both(self, request): pass",
                            f"{inside}def pytest_generate_tests(self, metafunc): pass",
                            f"{inside}import helper",
                            f"{inside}from helper import test_imported",
                        ]
                    )
                )
        if self.random.random() < self.wild * 0.4:
            head = head.replace(
                ":",
                f"({self.random.choice(['helper.Base', 'helper.Cases', 'object', 'Exception', 'metaclass=type', 'dict'])}):",
            )
            head = f"{indent}import helper\n{head}"
            if marks:
                return f"{indent}import helper\n{marks}{head.partition(chr(10))[2]}\n" + (
                    "\n".join(lines) or f"{inside}pass"
                )
        return (
            f"{marks}{head}\n" + ("\n".join(lines) or f"{inside}pass")
            if not head.lstrip().startswith("import")
            else f"{head}\n" + ("\n".join(lines) or f"{inside}pass")
        )

    def helper(self) -> str:
        """A function that is no test."""
        head = f"def {self.name('helper_')}(value=1, *rest: int, key=(1, 2)) -> None:"
        return f"{head}\n    globals()['test_late'] = value"

    def fixture(self) -> str:
        """A fixture without parameters."""
        words = self.random.choice(["", "()", "(scope='module')", "(autouse=True)", f"(name='{self.name('named_')}')"])
        return (
            f"@pytest.fixture{words}\ndef {self.name('fixture_')}():\n    {self.random.choice(['yield 1', 'return 2'])}"
        )

    def constant(self) -> str:
        """A constant."""
        value = self.random.choice(
            ["1", "[x for x in (1, 2)]", "'a,b'.split(',')", "dict(a=1)", "f'{1}'", "lambda: test_x", "len('a') + 1"]
        )
        return f"{self.random.choice(['', 'OTHER = '])}{self.name('VALUE_')} = {value}"

    def plain_class(self) -> str:
        """A class that holds no tests."""
        base = self.random.choice(["", "(Exception)", "(dict)", "(object)"])
        body = self.random.choice(
            [
                "value = 1",
                "def __init__(self): self.x = 1",
                "def test_not(self): pass",
                "@property\n    def p(self): return 1",
            ]
        )
        return f"class {self.name('Helper')}{base}:\n    {body}"


WILD = r"""
if True:
    BODY
---
if not pytest:
    BODY
---
for _ in [1, 2]:
    BODY
---
while False:
    BODY
---
try:
    BODY
finally:
    pass
---
try:
    import nothing_here
except ImportError:
    BODY
---
import contextlib
with contextlib.suppress(Exception):
    BODY
---
NAME = lambda: None
---
NAME = print
---
NAME = 3
---
NAME: int = 3
---
NAME = helper = None
---
def made():
    return lambda: None
NAME = made()
---
exec('def test_executed(): pass')
---
globals()['test_global'] = lambda: None
---
globals().update(test_updated=lambda: None)
---
(test_walrus := lambda: None)
---
def test_gone(): pass
del test_gone
---
def test_twice(): pass
def test_twice(): assert 2
---
def test_over(): pass
test_over = 3
---
def test_off(): pass
test_off.__test__ = False
---
def on(): pass
on.__test__ = True
---
__test__ = False
---
__test__ = True
---
import unittest
class Cases(unittest.TestCase):
    def test_u(self): pass
    @unittest.skip('x')
    def test_v(self): pass
---
import unittest
class TestRun(unittest.TestCase):
    def runTest(self): pass
---
import unittest
class Empty(unittest.TestCase): pass
---
def pytest_generate_tests(metafunc):
    if 'g' in metafunc.fixturenames:
        metafunc.parametrize('g', 'xy')
def test_g(g): pass
---
@pytest.fixture(params=['l', 'r'])
def side(request): return request.param
def test_side(side): pass
---
@pytest.fixture(autouse=True, params=[1, 2])
def around(request): pass
---
both = pytest.fixture(params=[1, 2])(lambda request: 1)
---
import helper
class TestChild(helper.Base):
    def test_own(self): pass
---
import helper
class Child(helper.Cases): pass
---
class Mine:
    def test_m(self): pass
class TestMine(Mine):
    def test_n(self): pass
class TestMore(TestMine): pass
---
class TestAliased:
    def test_a(self): pass
Alias = TestAliased
TestAgain = TestAliased
---
import enum
class TestKind(enum.Enum):
    test_one = 1
    def test_two(self): pass
---
class TestMeta(metaclass=type):
    def test_q(self): pass
---
import functools
test_partial = functools.partial(print)
---
import functools
@functools.lru_cache
def test_cached(): pass
---
from unittest import mock
@mock.patch('os.getcwd')
def test_patched(getcwd): pass
---
@pytest.hookimpl
def test_hook(): pass
---
mark_of_mine = pytest.mark.parametrize('z', [1, 2])
@mark_of_mine
def test_z(z): pass
---
pytestmark = [pytest.mark.g, pytest.mark.h]
---
pytestmark = pytest.mark.parametrize('w', [1, 2])
def test_w(w): pass
---
pytestmark = extra = pytest.mark.parametrize('w', [1])
def test_w(w): pass
---
pytestmark: object = pytest.mark.parametrize('w', [1])
def test_w(w): pass
---
import pytest as pt
@pt.mark.parametrize('k', [1, 2])
def test_k(k): pass
---
import abc
class TestAbstract(abc.ABC):
    @abc.abstractmethod
    def test_abs(self): pass
---
from dataclasses import dataclass
@dataclass
class TestData:
    x: int = 1
    def test_d(self): pass
---
pytest.skip('no', allow_module_level=True)
---
pytest.importorskip('nothing_here')
---
raise RuntimeError
---
class Swap:
    def __init_subclass__(cls): globals()['test_swapped'] = lambda: None
class Other(Swap): pass
---
def default(x=globals().update(test_default=lambda: None)): pass
---
def noted(x: globals().update(test_noted=lambda: None)): pass
---
class Holder:
    globals()['test_held'] = lambda: None
---
class Holder:
    from helper import TestImported
---
def __getattr__(name): return lambda: None
---
match 1:
    case 1:
        def test_matched(): pass
---
type = 3
---
import sys
sys.modules[__name__].test_through = lambda: None
---
pytest_plugins = []
---
pytest_plugins = ['helper']
---
from __main__ import *
---
nonexistent_name
---
[globals().__setitem__('test_comp', print) for _ in 'a']
---
def outer():
    global test_outer
    def test_outer(): pass
outer()
""".strip().split("\n---\n")
"""Statements whose effect on the list of tests syntax does not prove; BODY and NAME are of a random test."""
CONFTESTS = r"""
7
---
3
import pytest
@pytest.fixture
def shared():
    return 1
---
2
from helper import CONSTANT, plain
import helper
VALUE = [CONSTANT]
def test_not_here(): pass
---
1
def pytest_runtest_setup(item): pass
def pytest_report_header(config): return 'x'
---
1
import pytest
@pytest.fixture(autouse=True, params=[1, 2])
def all_of_them(request): pass
---
1
from helper import everywhere
---
1
from helper import *
---
1
def pytest_collection_modifyitems(items):
    items[:] = [one for one in items if 'a' in one.name]
---
1
def pytest_make_parametrize_id(val): return 'line\nbreak' if val == 1 else None
---
1
def pytest_generate_tests(metafunc): pass
---
1
def pytest_pycollect_makeitem(collector, name, obj):
    return [] if name.endswith('1') else None
---
1
import pytest
@pytest.hookimpl(wrapper=True)
def pytest_pycollect_makeitem():
    found = yield
    return found
""".strip().split("\n---\n")
"""Texts of conftest.py, each after a line that says how often."""


def conftest(random: Random) -> str:
    """The text of a conftest.py, which is often none."""
    weights, texts = zip(*(one.partition("\n")[::2] for one in CONFTESTS), strict=True)
    return str(random.choices(texts, list(map(int, weights)))[0])
