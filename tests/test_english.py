"""The English of the repository: plain words in docstrings, comments, messages, help texts and Markdown."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]

PLAIN = {
    r"(?:is|are|was|were|be|been) said": "is reported, is printed, is documented",
    r"beside": "next to, besides, with, in addition to",
    r"of (?:its|their|his|her|my|our|your|one's) own(?! (?!(?:and|as|at|by|for|from|in|is|made|of|on|or|that|to|too|when"
    r"|which|whose|with)\b)\w)": "its own ...",
    r"as good as": "like, nearly, effectively",
    r"otherwise than": "unlike, differently from",
    r"by chance": "accidentally, at random",
    r"of (?:no )?use": "useful, useless",
    r"will do": "is enough, may be used",
    r"less than nothing": "negative",
    r"stays? at home": "is private",
    r"(?:takes?|took|taking) no notice": "ignore",
    r"cannot be meant": "is invalid",
    r"wish(?:es|ed)?": "override, option, request",
    r"(?:is|are|was|were) no more": "does not exist, is gone, is at most",
    r"whatever (?:becomes|became) of": "regardless of",
    r"that which": "the noun",
    r"(?:goes|go|going) on(?! (?:to|PATH)\b)": "continue, run",
    r"makes? no sense": "is malformed, is invalid",
    r"whoever": "name the actor",
    r"(?:reckons?|reckoned)": "count, estimate",
    r"anew": "again, re-...",
}
"""Phrases that are literal translations, or paraphrases of a noun that the field has, and plain words for each."""

SUBJECT = re.compile(r"(?:^|(?<=[.!?]\s))(?:who|what|that which)\b(?!.*\?)", re.IGNORECASE)
"""A pronoun where the sentence needs the noun."""

NO_VERBS = re.compile(
    r"(?:an?|all|another|any|are|as|at|both|by|each|either|every|everything|few|for|four|from|go's|how|if|in|is|its?"
    r"|most|much|neither|nobody|none|nothing|no|of|on|once|one|only|other|raises|returns|several|some|starts|such|that|the"
    r"|their|them|these|they|this|those|three|to|two|what|whatever|when|where|whether|which|who|whom|whose|why|with"
    r"|without|yields)(?![-\w'])",
    re.IGNORECASE,
)
"""First words of docstrings that do not tell the reader what a function does."""


RENAMED = {
    "Belongings": "LeakCheck",
    "MirrorDoor": "MirrorProxy",
    "UNSETTLED": "DIRTY",
    "Wishes": "WorkerOverrides",
    "Workshop": "RunContext",
    "glance": "resolve_tags",
    "janitor": "supervisor",
    "more_flags": "extra_flags",
    "start_again": "restart",
    "take_again": "reacquire",
    "useless-wish": "unused-override",
}
"""Names for which the field has a word."""


class Text(NamedTuple):
    line: int
    kind: str
    text: str


def python_texts(source: str) -> Iterator[Text]:
    """Yield the docstrings, comments and messages of a Python file; a message is a literal of two words or more."""
    tree = ast.parse(source)
    documented = {id(text.value): kind for text, kind in _docstrings(tree)}
    pieces = {id(piece) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for piece in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(piece.value) if isinstance(piece, ast.Constant) else "{}" for piece in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in pieces:
            text = node.value
        else:
            continue
        if id(node) in documented or re.search(r"\w \w", text):
            yield Text(node.lineno, documented.get(id(node), "message"), text)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield Text(token.start[0], "comment", token.string.lstrip("# "))


def _docstrings(tree: ast.Module) -> Iterator[tuple[ast.Expr, str]]:
    """Yield each string that stands alone as a statement, and whether it is the docstring of a function."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for place, statement in enumerate(body if isinstance(body, list) else []):
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                is_first = place == 0 and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                yield statement, "function" if is_first and not _is_noun(node) else "docstring"


def _is_noun(node: ast.AST) -> bool:
    """Return whether a function is read like a value: a property or a fixture."""
    decorators = [ast.unparse(decorator) for decorator in getattr(node, "decorator_list", [])]
    return any("property" in decorator or "fixture" in decorator for decorator in decorators)


def markdown_texts(source: str) -> Iterator[Text]:
    """Yield the lines of a page without its code."""
    is_code = False
    for number, line in enumerate(source.splitlines(), 1):
        is_code ^= line.lstrip().startswith("```")
        if not is_code:
            yield Text(number, "page", re.sub(r"`[^`]*`", "``", line))


def findings(name: str, source: str) -> list[str]:
    """Return a line for each text of a file that is not plain: where, what is wrong, and what to write instead."""
    texts = python_texts(source) if name.endswith(".py") else markdown_texts(source)
    return [f"{name}:{text.line}: {fault}" for text in texts for fault in _faults(text, is_test_file(name))]


def is_test_file(name: str) -> bool:
    """Return whether functions of a file are tests, whose docstrings describe a case and not a call."""
    return "tests/" in name


def _faults(text: Text, is_test: bool) -> Iterator[str]:
    words = " ".join(text.text.split())
    for phrase, plain in PLAIN.items():
        for match in re.findall(rf"\b{phrase}\b", words, re.IGNORECASE):
            yield f"{match!r} in a {text.kind}: write {plain}"
    if text.kind not in ("page", "comment") and SUBJECT.search(words) and not is_test:
        yield f"{words[:50]!r}: begin with the noun, or name the actor"
    if text.kind == "function" and not is_test and NO_VERBS.match(words):
        yield f"{words[:50]!r}: begin with a verb: 'Return ...', 'Yield ...', 'Raise ...'"


def _files() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "*.py", "*.md"], cwd=ROOT, check=True, capture_output=True, text=True)
    return [name for name in listed.stdout.split() if name != "tests/test_english.py"]


def test_texts_are_plain_english() -> None:
    assert [fault for name in _files() for fault in findings(name, (ROOT / name).read_text())] == []


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ('"""It is of use."""', "'of use' in a docstring"),
        ("# beside it", "'beside' in a comment: write next to"),
        ('print("the file is said")', "'is said' in a message"),
        ('raise Error(f"{name} has a {kind} of its own")', "'of its own'"),
        ('def f():\n    """Whether a result from before is there."""', "a.py:2: 'Whether a result"),
        ('def f():\n    """What the caller gets."""', "begin with the noun"),
        ('def f():\n    """The digest."""', "begin with a verb"),
        ('parser.add_argument("--x", help="what is printed")', "begin with the noun"),
    ],
)
def test_odd_english_is_found(source: str, part: str) -> None:
    assert part in "\n".join(findings("a.py", source))


@pytest.mark.parametrize(
    "source",
    [
        'def f():\n    """Return the digest of its own file."""',
        'class A:\n    """The digest."""\n    @property\n    def f(self):\n        """Whether it is there."""',
        'beside = "beside"',
        'print("What is missing?")',
    ],
)
def test_plain_english_passes(source: str) -> None:
    assert findings("a.py", source) == []


def test_names_are_the_words_of_the_field() -> None:
    pattern = re.compile(rf"\b(?:{'|'.join(RENAMED)})\b", re.IGNORECASE)
    assert pattern.findall("the workshop") == ["workshop"]
    found = {name: pattern.findall((ROOT / name).read_text()) for name in _files() if name != "CHANGELOG.md"}
    assert {name: words for name, words in found.items() if words} == {}


def test_code_of_a_page_is_not_english() -> None:
    page = "It stands `beside`.\n```\nbeside\n```\nIt stands beside it.\n"
    assert findings("a.md", page) == ["a.md:5: 'beside' in a page: write next to, besides, with, in addition to"]
