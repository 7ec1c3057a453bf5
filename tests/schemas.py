"""The JSON schemas that bk publishes, and documents checked against them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Any

from jsonschema import Draft202012Validator

REPORT, EVENTS = "report.schema.json", "events.schema.json"


def schema(name: str) -> dict[str, Any]:
    """A schema as users find it: a file of the installed package."""
    document: dict[str, Any] = json.loads((resources.files("bkrules.report") / name).read_text())
    return document


@cache
def _validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(schema(name))


def validate(name: str, document: object) -> None:
    """Fail with the first place at which the document is not what the schema says."""
    for error in _validator(name).iter_errors(document):
        raise AssertionError(f"{name}: {error.json_path}: {error.message}")


def parts(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the schema of each field, and of each item of an array, with its path."""
    for name, one in {**node.get("$defs", {}), **node.get("properties", {})}.items():
        yield f"{path}.{name}", one
        yield from parts(one, f"{path}.{name}")
    for kind in ("items", "additionalProperties"):
        if isinstance(node.get(kind), dict):
            yield f"{path}[]", node[kind]
            yield from parts(node[kind], f"{path}[]")
