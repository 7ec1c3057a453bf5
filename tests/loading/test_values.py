from __future__ import annotations

from collections.abc import Callable

import pytest

from bkrules.errors import LoadError
from bkrules.loading import meter
from bkrules.loading.loader import load
from bkrules.model.rule import Rule

Words = Callable[[str, str], tuple[str, ...]]


@pytest.fixture
def words(rules: dict[str, Rule]) -> Words:
    """The value of an expression that gives a list of strings, after some statements."""

    def run(statements: str, expression: str) -> tuple[str, ...]:
        text = f"from bkrules import thing\n{statements}\nthing(name = 'a', words = {expression})\n"
        value: tuple[str, ...] = load(text.encode(), "pkg/BUILD.py", "pkg", rules).targets["a"].attributes["words"]
        return value

    return run


@pytest.fixture
def fails(words: Words) -> Callable[[str], LoadError]:
    def run(statements: str) -> LoadError:
        with pytest.raises(LoadError) as caught:
            words(statements, "[]")
        return caught.value

    return run


@pytest.mark.parametrize(
    ("statements", "expression", "value"),
    [
        ("", "[str(x) for x in [isinstance('', str), isinstance(1, (str, int)), isinstance([], dict)]]", "True True False"),
        ("", "map(str.upper, ['a', 'b'])", "A B"),
        ("", "[name + str(n) for n, name in enumerate(['a', 'b'], 1)]", "a1 b2"),
        ("", "[a + b for a, b in zip('ab', 'cd')]", "ac bd"),
        ("", "filter(None, ['a', '', 'b'])", "a b"),
        ("", "reversed(sorted(['b', 'c', 'a'], key = lambda x: x))", "c b a"),
        ("", "[str(max([1, 2])), str(min(3, 2)), str(sum([1, 2], 3)), str(round(1.26, 1)), str(round(2.5))]", "2 2 6 1.3 2"),
        ("", "sum([['a'], ['b']], [])", "a b"),
        ("", "[', '.join(x for x in 'ab'), 'a'.ljust(3, '.'), 'aa'.replace('a', 'bc')]", "a,_b a.. bcbc"),
        ("", "['%s %5.2f' % ('a', 1), f'{1 + 1:03}', f'{[1]!r:>5}', str({'a': (1, None)})]", "a__1.00 002 __[1] {'a':_(1,_None)}"),
        ("x = [1]\ny = x\nx += [2]", "[str(y)]", "[1,_2]"),
        ("x = {'a': [1]}\nx['a'] += [2]\nx['b'] = 3\nx['b'] *= 2\nx |= {'c': 1}", "[str(x)]", "{'a':_[1,_2],_'b':_6,_'c':_1}"),
        ("x = [3, 1]\nx.sort()\nx.insert(0, 0)\ny = x.append\ny(4)", "[str(x), str(x.pop())]", "[0,_1,_3,_4] 4"),
        ("def f(a, *rest, b = 1, **more):\n  return [a, *rest, str(b)] + sorted(more)", "f('x', 'y', b = 2, c = 3)", "x y 2 c"),
        ("def f():\n  x = []\n  def g(y):\n    x.append(y)\n  [g(n) for n in 'ab']\n  return x", "f()", "a b"),
        ("t = {'a': [1]}\nthing(name = 'b', table = t)\nt['a'].append(2)", "[str(t)]", "{'a':_[1,_2]}"),
    ],
)  # fmt: skip
def test_what_build_files_compute(statements: str, expression: str, value: str, words: Words) -> None:
    assert [word.replace(" ", "_") for word in words(statements, expression)] == value.split(" ")


@pytest.mark.parametrize(
    ("statements", "reason"),
    [
        ("x = [0]\nfor y in x: x.append(y)", "too-long"),
        ("x = [0]\n[x.append(y) for y in x]", "too-long"),
        ("x = [0]\nfor n in range(60): x += x", "too-long"),
        ("x = [0]\nfor n in range(60): x.extend(x)", "too-long"),
        ("x = [0]\nfor n in range(60): x = [*x, *x]\nlist(x)", "too-long"),
        ("x = 'a'\nfor n in range(60): x = f'{x}{x}'", "too-long"),
        ("x = 'a'\nfor n in range(60): x = '%s%s' % (x, x)", "too-long"),
        ("x = 'a'\nfor n in range(60): x = ''.join([x, x])", "too-long"),
        ("x = 'a'\nfor n in range(60): x = x.replace('a', 'aa')", "too-long"),
        ("x = [0]\nfor n in range(60): x = [x, x]\nstr(x)", "evaluation"),
        ("x = [0]\nfor n in range(40): x = [x, x]\nstr(x)", "too-long"),
        ("x = [0]\nfor n in range(40): x = [x, x]\nthing(name = 'x', table = {'x': x})", "too-long"),
        ("[0 for a in range(1000) for b in range(1000) for c in range(1000)]", "too-long"),
        ("x = 'a' * 10 ** 9", "too-long"),
        ("x = 10 ** 9 * ['a']", "too-long"),
        ("x = 'a'.ljust(10 ** 9)", "too-long"),
        ("x = '\\t'.expandtabs(10 ** 9)", "too-long"),
        ("x = 10 ** 10 ** 10", "too-large"),
        ("x = 1 << 10 ** 10", "too-large"),
        ("x = 2\nfor n in range(60): x *= x", "too-large"),
        ("x = '%1000000000d' % 1", "too-large"),
        ("x = '%*d' % (10 ** 9, 1)", "too-large"),
        ("x = '%.1000000000f' % 1", "too-large"),
        ("x = f'{1:1000000000}'", "too-large"),
        ("x = f'{1:{10 ** 9}}'", "too-large"),
        ("x = range(10 ** 9)", "too-large"),
        ("x = range(10 ** 30)", "too-large"),
        ("x = round(1, -10 ** 9)", "too-large"),
        ("def f(): return g()\ndef g(): return f()\nf()", "recursion"),
        ("(lambda x: x(x))(lambda x: x(x))", "recursion"),
        ("def make(): return lambda: make()()\nmake()()", "recursion"),
        ("x = []\nx.append(x)\nstr(x)", "evaluation"),
        ("x = []\nx.append(x)\nthing(name = 'x', table = {'x': x})", "bad-attribute"),
    ],
)
def test_loading_always_ends(
    statements: str, reason: str, fails: Callable[[str], LoadError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meter, "STEPS", 1_000_000)
    error = fails(statements)
    assert error.reason == reason
    assert error.where.startswith("pkg/BUILD.py:")


@pytest.mark.parametrize(
    "statement",
    [
        *("str(lambda: 0)", "f'{len}'", "'%s' % len", "f'{[len]!r}'", "str([{'a': thing}])", "f'{str}'", "f'{len!a}'"),
        *("x = {}.keys()\nx |= []", "x = [{}.keys()]\nx[0] &= []", "{}.keys() | []", "{}.items() - []"),
        *("isinstance(1, len)", "isinstance(1, [int])", "list.append([], 1)", "sum(['a'], '')"),
        "f'{(n for n in [0])!r}' + 1",
    ],
)
def test_nothing_depends_on_the_run(statement: str, fails: Callable[[str], LoadError]) -> None:
    assert fails(statement).reason == "evaluation"


@pytest.mark.parametrize("value", ["len", "thing", "lambda: 0", "[len]", "{'x': (1, [str])}", "range(3)", "{}.keys()"])
def test_an_attribute_is_plain_data(value: str, fails: Callable[[str], LoadError]) -> None:
    error = fails(f"thing(name = 'x', table = {{'v': {value}}})")
    assert (error.reason, error.where) == ("bad-attribute", "pkg/BUILD.py:2, attribute 'table'")


def test_a_target_is_not_changed_after_its_call(rules: dict[str, Rule]) -> None:
    text = b"from bkrules import thing\nt = {'a': [1]}\nthing(name = 'a', table = t)\nt['a'].append(2)\n"
    assert load(text, "BUILD.py", "", rules).targets["a"].attributes["table"] == {"a": [1]}
