"""Writes a build file in the one way: ruff's layout, `name = value` as Bazel has it, attributes in the order of their rule.

Only the layout changes. Whatever a step does, the result must have the same syntax tree, apart from orders without a
meaning, and the same comments; otherwise the file stays as it is.
"""

from __future__ import annotations

import ast
import inspect
import io
import re
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.util import find_spec

from bkrules.errors import ActionFailed, MachineLacks
from bkrules.loading.syntax import parse
from bkrules.model.rule import COMMON
from bkrules.rules import RULES

LINE = 120
"""The most characters in a line, where the layout has a choice."""
SORTED = frozenset({"data", "tools", "tags"})
"""The attributes whose lists are sets: their order has no meaning, so labels in them are sorted."""
_MOST_ROUNDS = 50
_ROOM = b"__"
_RUFF = ("format", "--isolated", "--quiet", "--no-cache", f"--line-length={LINE}", "--target-version=py311", "-")

_Edit = tuple[int, int, bytes]
"""The first byte, the byte after the last, and the new bytes."""


def formatted(data: bytes, file: str) -> bytes:
    """Return a build file in the one way; `file` is its name in errors.

    Raises LoadError for bytes that are no Python, MachineLacks without ruff, and ActionFailed when the result would mean
    something else.
    """
    before = parse(data, file)
    text = _laid_out(data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n"), file)
    for _ in range(_MOST_ROUNDS):  # each round orders the outermost calls that need it
        edits = list(_orders(_Source(text)))
        if not edits:
            break
        text = _edited(text, edits)
    text = _laid_out(_edited(text, _wide(_Source(text))), file)
    text = _edited(text, _spaces(_Source(text)))
    if _meaning(before) != _meaning(parse(text, file)) or _comments(data) != _comments(text):
        message = f"{file}: bk fmt cannot keep its meaning or its comments, so it stays as it is"
        raise ActionFailed("not-formatted", message, hint="write it by hand, and report this")
    return text


def _laid_out(data: bytes, file: str) -> bytes:
    """Return a file in ruff's layout. Raises MachineLacks without ruff, and ActionFailed when it fails."""
    if find_spec("ruff") is None:
        hint = "install it next to bk:  pip install 'bkrules[fmt]'"
        raise MachineLacks("no-ruff", "bk fmt needs ruff, which is not installed", hint=hint)
    command = [sys.executable, "-I", "-m", "ruff", *_RUFF]
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    if done.returncode:
        raise ActionFailed("not-formatted", f"{file}: ruff failed", log=done.stderr.decode(errors="replace"))
    return done.stdout


class _Source:
    """A source, its syntax tree, and the places of nodes as numbers of bytes."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.tree = ast.parse(text)
        self._starts = [0, *(match.end() for match in re.finditer(rb"\n", text))]

    def start(self, node: ast.expr | ast.keyword) -> int:
        """Return the first byte of a node."""
        return self._starts[node.lineno - 1] + node.col_offset

    def end(self, node: ast.expr | ast.keyword | ast.arg) -> int:
        """Return the byte after the last of a node."""
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._starts[node.end_lineno - 1] + node.end_col_offset

    def line(self, number: int) -> int:
        """Return the first byte of a line, which counts from 1; the end of the text for one after the last."""
        return self._starts[number - 1] if number <= len(self._starts) else len(self.text)


def _nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield a node and all below it, without the inside of f-strings, whose places are not reliable."""
    yield node
    if not isinstance(node, ast.JoinedStr):
        for child in ast.iter_child_nodes(node):
            yield from _nodes(child)


def _edited(text: bytes, edits: Sequence[_Edit]) -> bytes:
    """Return a text after edits that do not overlap; of two that do, the first counts."""
    end = -1
    parts, place = [], 0
    for begin, end_of_edit, new in sorted(edits, key=lambda edit: (edit[0], -edit[1])):
        if begin < end:
            continue
        parts += [text[place:begin], new]
        place = end = end_of_edit
    return b"".join([*parts, text[place:]])


def _orders(source: _Source) -> Iterator[_Edit]:
    """Yield the edits that order attributes and lists."""
    for node in _nodes(source.tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id not in RULES:
            continue
        for keyword in node.keywords:
            if keyword.arg in SORTED and isinstance(keyword.value, ast.List):
                yield from _reordered(source, keyword.value.elts, _sorted(keyword.value.elts), keyword.value.end_lineno)
        named = [one for one in node.keywords if one.arg is not None]
        if not node.args and all(one.arg is not None for one in node.keywords[: len(named)]):
            yield from _reordered(source, named, _in_order(node.func.id, named), None)


def _in_order(rule: str, keywords: Sequence[ast.keyword]) -> list[ast.keyword]:
    """Return the attributes of a target: `name`, those of its rule as that declares them, all others, `tags`."""
    declared = ["name", *(name for name in RULES[rule].attributes if name not in COMMON)]
    places = {name: place for place, name in enumerate(declared)} | {"tags": len(declared) + 1}
    return sorted(keywords, key=lambda one: places.get(str(one.arg), len(declared)))


def _sorted(items: Sequence[ast.expr]) -> list[ast.expr]:
    """Return labels in buildifier's order: files, `:name`, `//pkg:name`, `@module`; other lists as they are."""
    texts = [item.value for item in items if isinstance(item, ast.Constant) and isinstance(item.value, str)]
    if len(texts) < len(items):
        return list(items)
    kinds = [
        next((number for number, start in ((3, "@"), (2, "//"), (1, ":")) if text.startswith(start)), 0)
        for text in texts
    ]
    order = sorted(range(len(items)), key=lambda number: (kinds[number], texts[number].replace(":", "!")))
    return [items[number] for number in order]


def _reordered(
    source: _Source, now: Sequence[ast.expr | ast.keyword], then: Sequence[ast.expr | ast.keyword], last: int | None
) -> Iterator[_Edit]:
    """Yield the edit that puts nodes in another order: those of one line, or each in its own lines, with its comments.

    `last` is the line with the closing bracket of a list, in which a comment may be about all that follows: then it stays.
    """
    if list(now) == list(then):
        return
    lines = {node.lineno for node in now} | {node.end_lineno for node in now}
    if len(lines) == 1:
        new = b", ".join(source.text[source.start(node) : source.end(node)] for node in then)
        yield source.start(now[0]), source.end(now[-1]), new
        return
    begins = [source.line((before.end_lineno or 0) + 1) for before in now[:-1]]
    first = source.text.rfind(b"\n", 0, source.start(now[0])) + 1
    while (above := source.text.rfind(b"\n", 0, first - 1) + 1) < first and source.text[
        above:first
    ].lstrip().startswith(b"#"):
        first = above
    begins = [first, *begins]
    ends = [*begins[1:], source.line((now[-1].end_lineno or 0) + 1)]
    blocks = {id(node): source.text[begin:end] for node, begin, end in zip(now, begins, ends, strict=True)}
    alone = all(_is_first(source, node) for node in now)
    if not alone or (last is not None and any(b"#" in block for block in blocks.values())):
        return
    if not source.text[: ends[-1]].rstrip().endswith(b",") and b"#" not in blocks[id(now[-1])]:
        return
    yield begins[0], ends[-1], b"".join(blocks[id(node)] for node in then)


def _is_first(source: _Source, node: ast.expr | ast.keyword) -> bool:
    """Return whether nothing is before a node in its line."""
    start = source.start(node)
    return not source.text[source.text.rfind(b"\n", 0, start) + 1 : start].strip()


def _wide(source: _Source) -> list[_Edit]:
    """Return the edits that make the names before each `=` as much longer as the spaces around it, for the limit of a line."""
    return [(place, place, _ROOM) for place in _equals(source)]


def _spaces(source: _Source) -> list[_Edit]:
    """Return the edits for spaces around the `=` of attributes and defaults, as Bazel writes them, where `_wide` made room."""
    return [(place - len(_ROOM), place + 1, b" = ") for place in _equals(source)]


def _equals(source: _Source) -> list[int]:
    """Return the places of the `=` of attributes and defaults."""
    places = []
    for node in _nodes(source.tree):
        if isinstance(node, ast.keyword) and node.arg is not None:
            places.append(source.start(node) + len(node.arg.encode()))
        elif isinstance(node, ast.arguments):
            positional = [*node.posonlyargs, *node.args]
            with_default = positional[len(positional) - len(node.defaults) :]
            with_default += [one for one, default in zip(node.kwonlyargs, node.kw_defaults, strict=True) if default]
            places += [source.end(one) for one in with_default]
    return [place for place in places if source.text[place : place + 1] == b"="]


def _meaning(tree: ast.Module) -> str:
    """Return a text of a syntax tree, the same for trees that differ only in orders without a meaning."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in RULES:
            for keyword in node.keywords:
                if keyword.arg in SORTED and isinstance(keyword.value, ast.List):
                    keyword.value.elts = _sorted(keyword.value.elts)
            named = [one for one in node.keywords if one.arg is not None]
            node.keywords = [
                *sorted(named, key=lambda one: str(one.arg)),
                *(one for one in node.keywords if one.arg is None),
            ]
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines = inspect.cleandoc(node.value.value).splitlines()
            node.value.value = "\n".join(line.rstrip() for line in lines).strip()  # a text alone does nothing
    return ast.dump(tree)


def _comments(text: bytes) -> Counter[str]:
    """Return the comments of a file, however they are indented."""
    tokens = tokenize.tokenize(io.BytesIO(text).readline)
    return Counter(token.string.lstrip("#!: ").rstrip() for token in tokens if token.type == tokenize.COMMENT)
