"""Loading ends: what an operation costs is charged before it is done, so that no build file can make bk hang or fill the memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bkrules.errors import LoadError
from bkrules.loading import meter
from bkrules.loading.loader import load
from bkrules.loading.meter import MOST_BYTES
from bkrules.loading.package import Package
from bkrules.loading.sources import Record, Sources
from bkrules.model.rule import Rule

PAIRS = "def pair(x, n):\n  for i in range(n): x = (x, x)\n  return x\n"
LISTS = "def nest(x, n):\n  for i in range(n): x = [x, x]\n  return x\n"


def _loaded(text: str, rules: dict[str, Rule]) -> Package:
    return load(f"from bkrules import glob, thing\n{text}\n".encode(), "pkg/BUILD.py", "pkg", rules)


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "STEPS", 300_000)


# Each would take longer than a life, or all of the memory.
ENDLESS = {
    "a type among many": "k = (str,) * 100000\nfor i in range(100): isinstance(1, k)",
    "labels": "x = [':a'] * 40000\nthing(name = 'a', deps = x)",
    "labels by name": "x = {str(i): ':a' for i in range(15000)}\nthing(name = 'a', by_name = x)\nthing(name = 'b', by_name = x)",
    "a nested tuple as a key": PAIRS + "{pair(1, 45): 1}",
    "a nested tuple as a key among others": PAIRS + "{'a': 1, pair(1, 45): 1, **{}}",
    "a nested tuple as a key of a comprehension": PAIRS + "x = pair(1, 45)\n{x: n for n in range(3)}",
    "a nested tuple as an index": PAIRS + "d = {}\nd[pair(1, 45)] = 1",
    "a nested tuple that is looked up": PAIRS + "d = {'a': 1}\nd[pair(1, 45)]",
    "a nested tuple added to an item": PAIRS + "d = {}\nd[pair(1, 45)] += 1",
    "a nested tuple in get": PAIRS + "{}.get(pair(1, 45))",
    "a nested tuple in setdefault": PAIRS + "x = {}.setdefault\nx(pair(1, 45), 1)",
    "a nested tuple in pop": PAIRS + "{}.pop(pair(1, 45), 1)",
    "a nested tuple in update": PAIRS + "{}.update([(pair(1, 45), 1)])",
    "a nested tuple in fromkeys": PAIRS + "dict.fromkeys([pair(1, 45)])",
    "a nested tuple in dict": PAIRS + "dict([(pair(1, 45), 1)])",
    "a nested tuple in a dictionary": PAIRS + "pair(1, 45) in {1: 1}",
    "a nested tuple in keys": PAIRS + "pair(1, 45) in {1: 1}.keys()",
    "a nested tuple not in items": PAIRS + "pair(1, 45) not in {1: 1}.items()",
    "a nested tuple in isdisjoint": PAIRS + "{1: 1}.keys().isdisjoint([pair(1, 45)])",
    "a nested tuple by map": PAIRS + "map({1: 1}.get, [pair(1, 45)])",
    "dictionaries as values": "def f(x):\n  for i in range(45): x = {'a': x, 'b': x}\n  return x\nf(1) == f(1)",
    "equal lists": LISTS + "nest(1, 45) == nest(1, 45)",
    "unequal lists": LISTS + "nest(1, 45) != nest(1, 45)",
    "ordered lists": LISTS + "nest(1, 45) < nest(1, 45)",
    "ordered tuples, in a row": PAIRS + "1 < 2 < pair(1, 45) < pair(1, 45)",
    "a nested list in a list": LISTS + "nest(1, 45) in [nest(1, 45)]",
    "a nested list in values": LISTS + "nest(1, 45) in {1: nest(1, 45)}.values()",
    "a nested list by index": LISTS + "[nest(1, 45)].index(nest(1, 45))",
    "a nested list by count": LISTS + "[nest(1, 45)].count(nest(1, 45))",
    "a nested list by remove": LISTS + "x = [nest(1, 45)]\nx.remove(nest(1, 45))",
    "a nested tuple by index of a tuple": PAIRS + "(pair(1, 45),).index(pair(1, 45))",
    "sorted lists": LISTS + "sorted([nest(1, 45), nest(1, 45)])",
    "lists that are sorted": LISTS + "x = [nest(1, 45), nest(1, 45)]\nx.sort()",
    "lists as keys of an order": LISTS + "sorted([1, 2], key = lambda n: nest(1, 45))",
    "lists as keys of a sort": LISTS + "x = [1, 2]\nx.sort(key = lambda n: nest(1, 45))",
    "the largest list": LISTS + "max(nest(1, 45), nest(1, 45))",
    "the smallest by a key": LISTS + "min([1, 2], key = lambda n: nest(1, 45))",
    "the text of a nested list": LISTS + "str(nest(1, 45))",
    "the text of nested values": LISTS + "f'{ {1: nest(1, 45)}.values() }'",
    "the quoted text of a nested list": LISTS + "f'{nest(1, 45)!r}'",
    "a nested list in a format": LISTS + "'%s' % nest(1, 45)",
    "a nested list in a format of names": LISTS + "'%(a)r' % {'a': nest(1, 45)}",
    "a nested list in an attribute": LISTS + "thing(name = 'a', table = {'a': nest(1, 45)})",
    "one value used again in a format": "'%(a)s' * 10000 % {'a': 'a' * 100000}",
    "a format of names that do not end": "'%(' * 400000 % 1",
    "many wide fields": "'%9999d' * 10000 % tuple(range(10000))",
    "many precise fields": "'%.9999f' * 10000 % tuple(range(10000))",
    "keys that collide": "x = {n * (2 ** 61 - 1): n for n in range(100000)}",
    "keys that collide in tuples": "d = {}\nfor n in range(100000): d[(n * (2 ** 61 - 1),)] = n",
    "keys that collide when copied": "d = {n * 2 ** 61: n for n in range(2000)}\nfor n in range(100000): {**d, -1: 1}",
    "splits": "x = 'a,' * 10000\nfor n in range(100000): x.split(',')",
    "lines": "x = 'a\\n' * 10000\nfor n in range(100000): x.splitlines()",
    "upper": "x = 'a' * 1000000\nfor n in range(100000): x.upper()",
    "upper by map": "map(str.upper, ['a' * 1000000] * 100000)",
    "count": "x = 'a' * 1000000\nfor n in range(100000): x.count('b')",
    "a method kept in a name": "x = ('a' * 1000000).title\nfor n in range(100000): x()",
    "a search from the right": "('a' * 1000000).rfind('b' + 'a' * 500000)",
    "a strip of many": "('a' * 1000000).strip('b' * 500000 + 'a')",
    "text in text": "x = 'a' * 1000000\nfor n in range(100000): ('a' * 1000 + 'b') in x",
    "tabs by name": "'\\t'.expandtabs(tabsize = 1 << 30)",
    "tabs": "'\\t'.expandtabs(1 << 30)",
    "usual tabs": "x = '\\t' * 1000000\n[x.expandtabs() for n in range(1000)]",
    "a centre": "'a'.center(1 << 30)",
    "a right side": "''.rjust(1 << 31, ' ')",
    "zeros": "'1'.zfill(1 << 30)",
    "replaced by much": "('a' * 10000).replace('a', 'b' * 100000)",
    "replaced between all": "('a' * 10000).replace('', 'b' * 100000)",
    "joined by much": "('a' * 100000).join(['b'] * 100000)",
    "a slice": "x = [1] * 1000000\nfor n in range(100000): x[1:]",
    "a slice of a text": "x = 'a' * 1000000\nfor n in range(100000): x[::-1]",
    "a stored slice": "x = [1] * 1000000\nfor n in range(100000): x[1:1] = [2]",
    "a name with a star": "x = [1] * 1000000\nfor n in range(100000):\n  a, *b = x",
    "a name with a star in a loop": "x = [1] * 1000000\nfor a, *b in [x] * 100000: pass",
    "a name with a star in a comprehension": "x = [1] * 1000000\n[0 for a, *b in [x] * 100000]",
    "a star in a list": "x = [1] * 100000\nfor n in range(100000): [*x]",
    "a star in a call": "x = [1] * 100000\ndef f(*a): pass\nfor n in range(100000): f(*x)",
    "two stars in a call": "x = {str(n): n for n in range(10000)}\ndef f(**a): pass\nfor n in range(100000): f(**x)",
    "two stars in a dictionary": "x = {str(n): n for n in range(10000)}\nfor n in range(100000): {**x}",
    "united dictionaries": "x = {str(n): n for n in range(10000)}\nfor n in range(100000): x | {}",
    "a united dictionary": "x = {str(n): n for n in range(10000)}\ny = {}\nfor n in range(100000): y |= x",
    "copies": "x = {str(n): n for n in range(10000)}\nfor n in range(100000): x.copy()",
    "inserts": "x = [1] * 1000000\nfor n in range(100000): x.insert(0, 1)",
    "pops from the front": "x = [1] * 1000000\nfor n in range(100000): x.pop(0)",
    "reversed": "x = [1] * 1000000\nfor n in range(100000): x.reverse()",
    "sums": "x = [1] * 100000\nfor n in range(100000): sum(x)",
    "sums of lists": "sum([[1] * 1000] * 100000, [])",
    "all": "x = [1] * 100000\nfor n in range(100000): all(x)",
    "enumerate": "x = [1] * 100000\nfor n in range(100000): enumerate(x)",
    "zip of many": "x = [1] * 100000\nzip(*[x] * 1000)",
    "a number in a range": "for n in range(100000): 1.5 in range(1000000)",
    "the place of a number in a range": "for n in range(100000): range(1000000).count(1.5)",
    "comprehension over comprehension": "[[a for a in range(1000)] for b in range(1000) for c in range(1000)]",
    "a body of many statements": "for n in range(1000000):\n" + "  x = 1\n" * 10000,
    "a function of many statements": "def f():\n" + "  x = 1\n" * 10000 + "for n in range(1000000): f()",
    "a lambda of many parts": f"f = lambda: [{'0, ' * 10000}]\nfor n in range(1000000): f()",
    "a large text in each round": f"for n in range(1000000): f'{'a' * 100000}{{n}}'",
    "functions that call functions": "def f0(): return [0] * 100\n"
    + "".join(f"def f{n}(): return [f{n - 1}() for x in range(100)]\n" for n in range(1, 9))
    + "f8()",
    "a list of lists that grows": "x = [[]]\nfor y in x: x.append([y, y])",
    "a queue": "x = {n: n for n in range(10000)}\nfor n in range(1000000): x[n + 10000] = x.pop(n)",
}


@pytest.mark.parametrize("name", ENDLESS)
def test_what_would_take_too_long_is_refused(name: str, rules: dict[str, Rule]) -> None:
    with pytest.raises(LoadError) as caught:
        _loaded(ENDLESS[name], rules)
    assert caught.value.reason == "too-long"
    assert caught.value.where.startswith("pkg/BUILD.py:")


def test_a_build_file_that_is_far_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "BUILD.py").open("wb") as file:
        file.truncate(1 << 40)
    assert len(Sources(str(tmp_path)).read("BUILD.py", Record()) or b"") == MOST_BYTES + 1


DEEP = "def deep(n):\n  x = ()\n  for i in range(n): x = (x,)\n  return x\n"
TOO_LARGE = {
    "a numeral": ("x = 0x" + "f" * 1000000, "forbidden-syntax"),
    "a division": ("x = (1 << 2000000) // 3", "too-large"),
    "a remainder": ("x = 7 ** 1000000 % 3", "too-large"),
    "a power in place": ("x = 7\nx **= 1000000", "too-large"),
    "a shift in place": ("x = 7\nx <<= 1000000", "too-large"),
    "a product": ("x = 1 << 1000\nx * x", "too-large"),
    "a sum": ("x = 1 << 1000\nfor n in range(100): x += x", "too-large"),
    "a negative sum": ("x = -(1 << 1000)\nfor n in range(100): x = x + x", "too-large"),
    "a number from text": ("x = int('f' * 1000000, 16)", "too-large"),
    "a number from decimal digits": ("x = int('9' * 100000)", "too-large"),
    "a number from few digits": ("x = int('f' * 1000, 16)", "too-large"),
    "an item's shift": ("x = [1]\nx[0] <<= 2000", "too-large"),
    "a wide field": ("x = f'{1:>1000000000}'", "too-large"),
    "a precise field": ("x = f'{1.5:.1000000000f}'", "too-large"),
    "a field as wide as is computed": ("x = f'{1:{1 << 30}}'", "too-large"),
    "a wide field of a format": ("x = '%(a)1000000000d' % {'a': 1}", "too-large"),
    "a text of a deep tuple": (DEEP + "str(deep(1000))", "evaluation"),
    "the hash of a deep tuple": (DEEP + "{deep(1000000): 1}", "too-long"),
    "the hash of a less deep tuple": (DEEP + "{deep(1000): 1}", "evaluation"),
    "a comparison of deep tuples": (DEEP + "deep(1000) == deep(1000)", "evaluation"),
    "an attribute that is a deep tuple": (DEEP + "thing(name = 'a', table = {'a': deep(1000)})", "bad-attribute"),
    "a list in itself": ("x = []\nx.append(x)\nx == [x]", "evaluation"),
    "calls": ("def f0(): pass\n" + "".join(f"def f{n}(): f{n - 1}()\n" for n in range(1, 3000)) + "f2999()", "too-deep"),
    "brackets": ("x = " + "[" * 10000, "syntax-error"),
    "closed brackets": ("x = " + "(" * 150 + ")" * 150, "ok"),
    "signs": ("x = " + "-" * 100000 + "1", "syntax-error"),
    "a chain of sums": ("x = " + "+ ".join(["1"] * 100000), "syntax-error"),
    "a chain of items": ("x = []" + "[0]" * 10000, "syntax-error"),
    "a chain of calls": ("x = thing" + "()" * 10000, "syntax-error"),
    "a chain of attributes": ("x = ''" + ".a" * 10000, "syntax-error"),
    "functions in functions": ("x = " + "lambda: " * 1000 + "1", "syntax-error"),
    "a chain of conditions": ("if 0: pass\n" + "elif 0: pass\n" * 1000, "syntax-error"),
    "nested texts": ("x = " + "f'{" * 3 + "1" + "}'" * 3, "syntax-error"),
    "a large file": ("#" * (9 << 20), "too-large"),
    "an item of nothing": (PAIRS + "x = {}\nx[pair(1, 10)]", "evaluation"),
    "an index of nothing": (PAIRS + "[].index(pair(1, 10))", "evaluation"),
    "a glob of nested lists": (LISTS + "glob([nest(1, 45)])", "bad-glob"),
    "a glob of values": (LISTS + "glob({1: nest(1, 45)}.values())", "bad-glob"),
    "a position of nested lists": (LISTS + "thing(nest(1, 45))", "positional"),
    "a name of nested lists": (LISTS + "thing(name = nest(1, 45))", "bad-name"),
    "more keys of a kind": ("dict(1, 2)", "evaluation"),
    "a method of a function": ("def f(x = 1): pass\nf.below()", "evaluation"),
    "a mapping of keys": ("{}.keys().mapping", "evaluation"),
}  # fmt: skip


@pytest.mark.parametrize("name", TOO_LARGE)
def test_what_is_too_large_or_too_deep_is_refused(name: str, rules: dict[str, Rule]) -> None:
    text, reason = TOO_LARGE[name]
    if reason == "ok":
        _loaded(text, rules)
        return
    with pytest.raises(LoadError) as caught:
        _loaded(text, rules)
    assert caught.value.reason == reason
    assert len(str(caught.value)) < 3_000


def test_a_file_that_is_refused_is_refused_wherever_it_is_loaded(rules: dict[str, Rule]) -> None:
    """The limits of Python count the frames of the caller, those of bk do not."""
    text = "x = " + "-" * (200 - 5) + "1"

    def loaded(depth: int) -> bool:
        if depth:
            return loaded(depth - 1)
        try:
            _loaded(text, rules)
        except LoadError:
            return False
        return True

    assert loaded(0) == loaded(500)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"\xef\xbb\xbf", "ä"),
        (b"# coding: utf-8\n", "ä"),
        (b"#!/usr/bin/python\n# -*- coding: UTF_8 -*-\n", "ä"),
        (b"\xef\xbb\xbf# vim: set fileencoding=utf-8 :\r\n", "ä"),
    ],
)
def test_a_build_file_is_utf8(head: bytes, words: str, rules: dict[str, Rule]) -> None:
    text = head + b"from bkrules import thing\r\nthing(name = 'a', words = ['\xc3\xa4'])\r\n"
    assert load(text, "pkg/BUILD.py", "pkg", rules).targets["a"].attributes["words"] == (words,)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"x = 1\ny = '\xe4'\n", 2),
        ("x = 'ä'\n".encode("utf-16"), 1),
        ("x = 'ä'\n".encode("utf-32"), 1),
        (b"# coding: latin-1\nx = '\xe4'\n", 1),
        (b"#!/bin/sh\n# -*- coding: punycode -*-\n", 2),
        (b"# coding: rot13\n", 1),
        (b"# coding: no-such-thing\n", 1),
        (b"x = '\xed\xa0\x80'\n", 1),
    ],
)
def test_a_build_file_in_another_encoding_is_an_error_with_its_line(
    text: bytes, line: int, rules: dict[str, Rule]
) -> None:
    with pytest.raises(LoadError) as caught:
        load(text, "pkg/BUILD.py", "pkg", rules)
    assert (caught.value.reason, caught.value.where) == ("syntax-error", f"pkg/BUILD.py:{line}")
    assert "UTF-8" in caught.value.message


@pytest.mark.parametrize("text", ["\\0", "a\\0b", "\\ud800", "a\\udcffb"])
@pytest.mark.parametrize("attribute", ["title = '{}'", "words = ['{}']", "table = {{'{}': 1}}", "dep = '{}'"])
def test_text_that_no_file_can_hold_is_refused(attribute: str, text: str, rules: dict[str, Rule]) -> None:
    with pytest.raises(LoadError) as caught:
        _loaded(f"thing(name = 'a', {attribute.format(text)})", rules)
    assert caught.value.reason == "bad-attribute"
    str(caught.value).encode()


HANGS = """
import signal, sys
from bkrules.loading import meter
from bkrules.loading.loader import load

meter.STEPS = 1 << 60
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
print("began", flush=True)
load(sys.argv[1].encode(), "BUILD.py", "", {})
"""


@pytest.mark.parametrize(
    "expression", ["(n, m) == (m, n)", "{(n, m): 1}", "str([n])", "sorted([m, n], key = lambda x: -x)"]
)
def test_ctrl_c_ends_loading(expression: str) -> None:
    text = f"for n in range(1000000):\n  for m in range(1000000): x = {expression}"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    program = [sys.executable, "-c", HANGS, text]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None and process.stdout.readline() == b"began\n"
        process.send_signal(signal.SIGINT)
        try:
            _, errors = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == -signal.SIGINT
    assert b"KeyboardInterrupt" in errors
