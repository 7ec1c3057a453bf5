"""Typed messages: dataclasses become JSON documents, and documents become dataclasses again or are refused.

The fields of a message are its schema. `to` omits a field with its default value, so a new field with a default changes
no document without it, and no key. `parse` trusts nothing: a field that is missing, unknown or of another type raises
ValueError.
"""

from __future__ import annotations

import functools
import json
import math
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from enum import Enum
from typing import Annotated, Any, ClassVar, Self, TypeVar, Union, get_args, get_origin, get_type_hints

Document = Mapping[str, object]
"""A JSON object before it is parsed."""
Parse = Callable[[object], Any]
Encode = Callable[[Any], object]
Message = TypeVar("Message", bound="Wire")
_SHOWN = 64


class Wire:
    """The base of messages, each of which is a dataclass.

    Fields may be text, numbers, booleans, enumerations, other messages, `object` for any JSON, and tuples and mappings
    of these. `Annotated[T, check]` adds a condition: `check` gets the value, and returns whether it is valid. `NAMES`
    maps fields to their names in the document, for keywords of Python. `TAG` is a field and its value that distinguish
    a message from others on the same channel.
    """

    NAMES: ClassVar[Mapping[str, str]] = {}
    TAG: ClassVar[tuple[str, str] | None] = None

    def to(self) -> dict[str, object]:
        """Return the document of this message."""
        document: dict[str, object] = {}
        if self.TAG is not None:
            document[self.TAG[0]] = self.TAG[1]
        for field in _schema(type(self)):
            value = getattr(self, field.attribute)
            if field.is_required or (value is not field.default and value != field.default):
                document[field.name] = value if field.encode is None else field.encode(value)
        return document

    @classmethod
    def parse(cls, document: object) -> Self:
        """Return the message of a document. Raises ValueError that names the wrong field."""
        if not isinstance(document, dict):
            raise ValueError("it is not a JSON object")
        values: dict[str, object] = {}
        tag = cls.TAG[0] if cls.TAG is not None else None
        if cls.TAG is not None and document.get(tag) != cls.TAG[1]:
            raise ValueError(f"the field {tag!r} is not {cls.TAG[1]!r}")
        for field in _schema(cls):
            if field.name in document:
                try:
                    values[field.attribute] = field.parse(document[field.name])
                except (ValueError, TypeError, RecursionError) as error:
                    raise ValueError(f"the field {field.name!r} is malformed: {str(error)[:_SHOWN]}") from error
            elif field.is_required:
                raise ValueError(f"the field {field.name!r} is missing")
        if len(values) + (tag is not None) < len(document):
            known = {tag, *(field.name for field in _schema(cls))}
            unknown = next(str(name) for name in document if name not in known)
            raise ValueError(f"the field {unknown[:_SHOWN]!r} is unknown")
        return cls(**values)


@dataclass(frozen=True, slots=True)
class _Field:
    attribute: str
    name: str
    default: object
    is_required: bool
    parse: Parse
    encode: Encode | None


_schemas: dict[type, tuple[_Field, ...]] = {}


def _schema(kind: type[Wire]) -> tuple[_Field, ...]:
    """Return how the fields of a message are written and parsed, computed once for each kind of message."""
    known = _schemas.get(kind)
    if known is None:
        known = _schemas[kind] = tuple(_fields(kind))
    return known


def _fields(kind: type[Wire]) -> Iterator[_Field]:
    hints = get_type_hints(kind, include_extras=True)
    for field in fields(kind):  # type: ignore[arg-type]
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        hint = hints[field.name]
        name = kind.NAMES.get(field.name, field.name)
        yield _Field(field.name, name, default, default is MISSING, _parser(hint), _encoder(hint))


def _parser(hint: Any) -> Parse:
    """Return a function that parses JSON to a value of a type, or raises ValueError or TypeError."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return functools.partial(_checked, _parser(arguments[0]), arguments[1:])
    if origin in (Union, types.UnionType):
        [inner] = [_parser(one) for one in arguments if one is not types.NoneType]
        return lambda value: None if value is None else inner(value)
    if origin is tuple and arguments[-1] is Ellipsis:
        return functools.partial(_many, _parser(arguments[0]))
    if origin is tuple:
        return functools.partial(_each, [_parser(one) for one in arguments])
    if origin is not None and issubclass(origin, Mapping):
        return functools.partial(_mapping, _parser(arguments[1]))
    if hint is object:
        return lambda value: value
    if hint is float:
        return _number
    if issubclass(hint, Wire):
        parse: Parse = hint.parse
        return parse
    if issubclass(hint, Enum):
        return functools.partial(_member, hint)
    return functools.partial(_plain, hint)


def _checked(parse: Parse, checks: tuple[Callable[[Any], bool], ...], value: object) -> object:
    found = parse(value)
    if not all(check(found) for check in checks):
        raise ValueError(f"{found!r} is not allowed")
    return found


def _many(parse: Parse, value: object) -> tuple[object, ...]:
    return tuple(map(parse, _list(value)))


def _each(parsers: list[Parse], value: object) -> tuple[object, ...]:
    return tuple(parse(one) for parse, one in zip(parsers, _list(value), strict=True))


def _list(value: object) -> list[object] | tuple[object, ...]:
    if not isinstance(value, list | tuple):
        raise TypeError("it is not a list")
    return value


def _mapping(parse: Parse, value: object) -> dict[str, object]:
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise TypeError("it is not a JSON object")
    return {name: parse(one) for name, one in value.items()}


def _number(value: object) -> object:
    if type(value) not in (int, float) or not math.isfinite(value):  # type: ignore[arg-type]
        raise TypeError("it is not a finite number")
    return value


def _member(kind: type[Enum], value: object) -> Enum:
    if not isinstance(value, str):
        raise TypeError("it is not a text")
    return kind(value)


def _plain(kind: type, value: object) -> object:
    """Return a value of exactly this type, since Python treats True as an int."""
    if type(value) is not kind and not (kind is str and isinstance(value, str)):
        raise TypeError(f"it is not of the type {kind.__name__}")
    return value


def _encoder(hint: Any) -> Encode | None:
    """Return a function that makes a value of a type ready for `json`; None when the value needs no change."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _encoder(arguments[0])
    if origin in (Union, types.UnionType):
        [some] = [_encoder(one) for one in arguments if one is not types.NoneType]
        return None if some is None else functools.partial(_if_any, some)
    if origin is tuple and arguments[-1] is Ellipsis:
        one = _encoder(arguments[0])
        return list if one is None else lambda value: [one(each) for each in value]
    if origin is tuple:
        return list
    if origin is not None and issubclass(origin, Mapping):
        inner = _encoder(arguments[1])
        return dict if inner is None else lambda value: {name: inner(each) for name, each in value.items()}
    if isinstance(hint, type) and issubclass(hint, Wire):
        return hint.to
    return None


def _if_any(encode: Encode, value: object) -> object:
    return None if value is None else encode(value)


def one_of(document: object, *kinds: type[Message]) -> Message:
    """Return the message of a document that has the tag of one of these kinds. Raises ValueError."""
    if isinstance(document, dict):
        for kind in kinds:
            if kind.TAG is not None and document.get(kind.TAG[0]) == kind.TAG[1]:
                return kind.parse(document)
    known = " or ".join(repr(kind.TAG[1]) for kind in kinds if kind.TAG is not None)
    raise ValueError(f"it is not a message of the kind {known}")


def text_of(message: Wire) -> str:
    """Return a message as canonical JSON: sorted and without spaces, so that equal messages are equal bytes."""
    return _text(message.to())


def parts_of(message: Wire) -> dict[str, str]:
    """Return the parts of a message's canonical JSON by the names of its fields, for messages that have most of them in common."""
    return {name: f"{_text(name)}:{_text(value)}" for name, value in message.to().items()}


def joined(parts: Mapping[str, str]) -> str:
    """Return the canonical JSON of a message with these parts: the same as that of `text_of`."""
    return f"{{{','.join([parts[name] for name in sorted(parts)])}}}"


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
