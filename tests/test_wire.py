"""Messages as JSON: what a dataclass becomes, and which documents become one again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rounds import rounds

from bkrules.model.status import FailureClass, Status
from bkrules.model.wire import Wire, joined, one_of, parts_of, text_of


def _even(number: int) -> bool:
    return number % 2 == 0


@dataclass(frozen=True)
class Inner(Wire):
    number: int


@dataclass(frozen=True)
class Outer(Wire):
    TAG: ClassVar = ("kind", "outer")
    NAMES: ClassVar = {"failure": "class"}

    text: str
    status: Status
    failure: FailureClass = FailureClass.NONE
    seconds: float = 0.0
    flag: bool = False
    even: Annotated[int, _even] = 0
    inner: Inner | None = None
    many: tuple[Inner, ...] = ()
    pair: tuple[str, int] = ("", 0)
    table: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    anything: object = None


WHOLE = Outer(
    "x",
    Status.TIMED_OUT,
    FailureClass.LEAK,
    1.5,
    True,
    4,
    Inner(1),
    (Inner(2), Inner(3)),
    ("a", 5),
    {"b": ("c", "d")},
    {"e": [None, 1.5]},
)
DOCUMENT = {
    "kind": "outer",
    "text": "x",
    "status": "timed out",
    "class": "leak",
    "seconds": 1.5,
    "flag": True,
    "even": 4,
    "inner": {"number": 1},
    "many": [{"number": 2}, {"number": 3}],
    "pair": ["a", 5],
    "table": {"b": ["c", "d"]},
    "anything": {"e": [None, 1.5]},
}
LEAST = {"kind": "outer", "text": "x", "status": "passed"}


def test_a_message_is_the_same_after_its_way() -> None:
    assert WHOLE.to() == DOCUMENT
    assert Outer.parse(json.loads(text_of(WHOLE))) == WHOLE


def test_what_has_its_default_is_left_out() -> None:
    assert Outer("x", Status.PASSED).to() == LEAST
    assert Outer.parse(LEAST) == Outer("x", Status.PASSED)


def test_equal_messages_are_equal_bytes() -> None:
    assert text_of(Outer.parse(dict(reversed(DOCUMENT.items())))) == text_of(WHOLE)
    assert text_of(Inner(1)) == '{"number":1}'


def test_the_parts_of_a_message_make_its_text() -> None:
    parts = parts_of(WHOLE)
    assert joined(dict(reversed(parts.items()))) == text_of(WHOLE)
    assert joined({**parts, **parts_of(Outer("ä", Status.PASSED))}) == text_of(
        replace(WHOLE, text="ä", status=Status.PASSED)
    )


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"text": 1}, "the field 'text' is malformed: it is not of the type str"),
        ({"status": "gone"}, "the field 'status' is malformed: 'gone' is not a valid Status"),
        ({"status": ["passed"]}, "the field 'status' is malformed: it is not a text"),
        ({"seconds": True}, "the field 'seconds' is malformed: it is not a finite number"),
        ({"seconds": float("inf")}, "the field 'seconds' is malformed: it is not a finite number"),
        ({"flag": 1}, "the field 'flag' is malformed: it is not of the type bool"),
        ({"even": 3}, "the field 'even' is malformed: 3 is not allowed"),
        ({"even": True}, "the field 'even' is malformed: it is not of the type int"),
        ({"inner": []}, "the field 'inner' is malformed: it is not a JSON object"),
        ({"inner": {}}, "the field 'inner' is malformed: the field 'number' is missing"),
        ({"many": "ab"}, "the field 'many' is malformed: it is not a list"),
        ({"pair": ["a"]}, "the field 'pair' is malformed"),
        ({"table": {"a": 1}}, "the field 'table' is malformed: it is not a list"),
        ({"surprise": 1}, "the field 'surprise' is unknown"),
        ({"kind": "inner"}, "the field 'kind' is not 'outer'"),
    ],
)
def test_a_document_of_another_form_is_refused(change: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Outer.parse({**LEAST, **change})


@pytest.mark.parametrize("name", ["text", "status"])
def test_a_field_that_is_missing_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"the field '{name}' is missing"):
        Outer.parse({key: value for key, value in LEAST.items() if key != name})


@pytest.mark.parametrize("document", [None, [], "x", {}, {"kind": ["outer"]}, {"kind": "other"}])
def test_a_document_of_no_kind_is_refused(document: object) -> None:
    with pytest.raises(ValueError, match="it is not a message of the kind 'outer'"):
        one_of(document, Outer)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@settings(max_examples=rounds(300))
@given(st.dictionaries(st.sampled_from([*DOCUMENT, "surprise"]), JSON))
def test_any_document_is_taken_or_refused(change: dict[str, object]) -> None:
    try:
        found = Outer.parse({**DOCUMENT, **change})
    except ValueError:
        return
    assert Outer.parse(found.to()) == found
