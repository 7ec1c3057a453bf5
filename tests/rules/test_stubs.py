"""`bkrules/__init__.pyi`: what editors and mypy know of build files, made from the rules."""

from __future__ import annotations

import inspect
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import bkrules
from bkrules.model.rule import COMMON, KINDS, Attr, Rule
from bkrules.rules import RULES

TYPES = {
    "string": "str",
    "bool": "bool",
    "count": "int",
    "strings": "_Strings",
    "label": "str",
    "labels": "_Strings",
    "dict": "Mapping[str, Any]",
    "dict_or_label": "Mapping[str, Any] | str",
    "dicts": "list[dict[str, str]] | tuple[dict[str, str], ...]",
    "label_dict": "Mapping[str, str]",
}
HEAD = '''"""What a WORKSPACE.py or BUILD.py may import, for editors and type checkers.

Made from the rules by `tests/rules/test_stubs.py`, which compares it: `python tests/rules/test_stubs.py` writes it again.
"""

from collections.abc import Mapping
from typing import Any

__version__: str
RULE_NAMES: tuple[str, ...]
FUNCTION_NAMES: tuple[str, ...]

_Strings = list[str] | tuple[str, ...]
'''
WIDTH = 116
MISTAKES = """from bkrules import glob, image_mirror, test_matrix, worker, wroker

worker(name = "oci", plugin = "oci", snapshotter = "native")
test_matrix(name = "a", tests = glob(["test_*.py"]), workers = [":oci"], mirror = ":m", timeout = 60)
test_matrix(name = "b", tests = [], workers = [":oci"], mirror = ":m", worker = ":oci")
test_matrix(name = "c", tests = "test_c.py", workers = [":oci"], mirror = ":m")
test_matrix(name = "d", tests = [], workers = [":oci"])
image_mirror(name = "m", images = {"a": 1})
"""


def stub() -> str:
    """The whole file."""
    functions = [_function(getattr(bkrules, name)) for name in sorted(bkrules.FUNCTION_NAMES)]
    return "\n".join([HEAD, *functions, *(_rule(rule) for _, rule in sorted(RULES.items()))])


def _function(function: Callable[..., object]) -> str:
    signature = inspect.signature(function)
    words = [
        str(one.replace(default=inspect.Parameter.empty)).replace("'", "") for one in signature.parameters.values()
    ]
    ends = ["" if one.default is inspect.Parameter.empty else " = ..." for one in signature.parameters.values()]
    shown = [word + end for word, end in zip(words, ends, strict=True)]
    if any(one.kind == inspect.Parameter.KEYWORD_ONLY for one in signature.parameters.values()) and "*" not in words:
        shown.insert(0, "*")
    answer = str(signature.return_annotation)
    return f"def {function.__name__}({', '.join(shown)}) -> {answer}:\n{_docstring([inspect.getdoc(function) or ''])}"


def _rule(rule: Rule) -> str:
    attributes = {**COMMON, **rule.attributes}
    required = [name for name, attribute in attributes.items() if attribute.required]
    ordered = [*required, *(name for name in attributes if name not in required)]
    lines = ["*", *(_parameter(name, attributes[name]) for name in ordered)]
    lines += ["**settings: Any"] if rule.open_ended else []
    text = [rule.doc, "", "Attributes:", *(f"{name}: {attributes[name].doc}" for name in ordered)]
    return f"def {rule.name}(\n{''.join(f'    {line},' + chr(10) for line in lines)}) -> object:\n{_docstring(text)}"


def _parameter(name: str, attribute: Attr) -> str:
    return f"{name}: {TYPES[attribute.kind]}" + ("" if attribute.required else " = ...")


def _docstring(parts: list[str]) -> str:
    return textwrap.indent('"""' + "\n".join(_wrapped(parts)) + '\n"""\n', "    ", lambda line: bool(line.strip()))


def _wrapped(parts: list[str]) -> Iterator[str]:
    is_attribute = False
    for part in parts:
        if len(parts) == 1 or not part:
            yield part
        else:
            start = "    " if is_attribute else ""
            yield from textwrap.wrap(part, WIDTH - 4, initial_indent=start, subsequent_indent=start * 2)
        is_attribute |= part == "Attributes:"


def test_every_kind_of_attribute_has_a_type() -> None:
    assert sorted(TYPES) == sorted(KINDS)


def test_the_stub_is_what_the_rules_say(repository: Path) -> None:
    """On a difference: `python tests/rules/test_stubs.py` in the environment writes the file."""
    assert (repository / "bkrules/__init__.pyi").read_text() == stub()


def test_build_files_are_typed(repository: Path, tmp_path: Path) -> None:
    """Those of this repository are right, and mypy finds a wrong attribute, type or name. It does not know `load`."""
    listed = subprocess.run(
        ["git", "ls-files", "*BUILD.py", "WORKSPACE.py"], cwd=repository, capture_output=True, text=True, check=True
    )
    names = listed.stdout.split()
    assert len(names) > 10
    for number, name in enumerate(names):
        text = (repository / name).read_text()
        (tmp_path / f"own_{number}.py").write_text(f"# mypy: disable-error-code=name-defined\n{text}")
    (tmp_path / "wrong.py").write_text(MISTAKES)
    command = [sys.executable, "-m", "mypy", "--config-file=", "--no-error-summary", "--hide-error-context", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    found = [line for line in done.stdout.splitlines() if ": error: " in line and "Argument after **" not in line]
    assert [line.partition(": error: ")[0] for line in found] == [f"wrong.py:{line}" for line in (1, 5, 6, 7, 8)], (
        done.stdout
    )
    for line, said in zip(
        found, ("wroker", '"worker" for "test_matrix"', '"tests"', '"mirror"', 'expected "str": "str"'), strict=True
    ):
        assert said in line


if __name__ == "__main__":
    Path(bkrules.__file__).with_suffix(".pyi").write_text(stub())
