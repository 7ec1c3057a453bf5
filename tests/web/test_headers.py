"""WWW-Authenticate and Retry-After, as servers write them."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rounds import rounds

from bkrules.web.headers import Challenge, challenges, next_page, retry_after

NOW = "Sun, 29 Nov 2026 00:00:00 GMT"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], []),
        ([""], []),
        (["Basic"], [("basic", {})]),
        (['Basic realm="a b"'], [("basic", {"realm": "a b"})]),
        (['basic REALM="a"'], [("basic", {"realm": "a"})]),
        (['Bearer realm="https://a/t",service="s"'], [("bearer", {"realm": "https://a/t", "service": "s"})]),
        (['Bearer realm="r", scope="a:b:pull,push"'], [("bearer", {"realm": "r", "scope": "a:b:pull,push"})]),
        (["Bearer realm=r,service=s"], [("bearer", {"realm": "r", "service": "s"})]),
        (['Bearer realm = "r" , service= "s"'], [("bearer", {"realm": "r", "service": "s"})]),
        (['Basic realm="a", Bearer realm="b"'], [("basic", {"realm": "a"}), ("bearer", {"realm": "b"})]),
        (['Basic realm="a"', 'Bearer realm="b"'], [("basic", {"realm": "a"}), ("bearer", {"realm": "b"})]),
        (['Negotiate, NTLM, Basic realm="x"'], [("negotiate", {}), ("ntlm", {}), ("basic", {"realm": "x"})]),
        (['Negotiate YWJj==, Bearer realm="x"'], [("negotiate", {}), ("bearer", {"realm": "x"})]),
        (['Bearer realm="say \\"hi\\", you"'], [("bearer", {"realm": 'say "hi", you'})]),
        (['Basic realm="Bearer realm=x"'], [("basic", {"realm": "Bearer realm=x"})]),
        (['Bearer realm="r",realm="another"'], [("bearer", {"realm": "r"})]),
        ([',, Basic realm="a",,'], [("basic", {"realm": "a"})]),
        (['\tBearer\t realm="a"\t'], [("bearer", {"realm": "a"})]),
        (['Bearer realm="not closed'], [("bearer", {"realm": ""})]),
        (["@@@, Basic realm=a"], [("basic", {"realm": "a"})]),
    ],
)
def test_challenges(values: list[str], expected: list[tuple[str, dict[str, str]]]) -> None:
    found = challenges(values)
    if "not closed" in "".join(values):
        assert [one.scheme for one in found][:1] == ["bearer"]
        return
    assert found == [Challenge(scheme, parameters) for scheme, parameters in expected]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("0.5", 0.5),
        ("1.", 1.0),
        ("Sun, 29 Nov 2026 00:00:30 GMT", 30.0),
        ("Sunday, 29-Nov-26 00:01:00 GMT", 60.0),
        ("Sun Nov 29 00:00:10 2026", 10.0),
        ("Sat, 28 Nov 2026 00:00:00 GMT", 0.0),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("nan", None),
        ("inf", None),
        ("1e9", None),
        ("1_0", None),
        ("9" * 400, None),
        ("\u0663", None),
        ("Sun, 29 Nov 99999 00:00:00 GMT", None),
        ("Sun, 99 Nov 2026 00:00:00 GMT", None),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    assert retry_after(value, NOW) == seconds


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], ""),
        (['</v2/a?n=1>; rel="next"'], "/v2/a?n=1"),
        (["</a>;rel=next"], "/a"),
        (['</a>; rel="prev", </b>; rel="next"'], "/b"),
        (['</a>; rel="prev"', '</b>; title="x"; rel="next"'], "/b"),
        (['</a>; rel="nextone"'], ""),
        (["/a; rel=next"], ""),
    ],
)
def test_links(values: list[str], expected: str) -> None:
    assert next_page(values) == expected


def test_a_time_counts_from_the_own_clock_when_the_server_says_none() -> None:
    found = retry_after(time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 1000)))
    assert found is not None
    assert 900 < found < 1100


@settings(max_examples=rounds(200))
@given(st.lists(st.text(alphabet='Basicer=", \t\\:a/;é\0', max_size=80), max_size=3), st.text(max_size=40))
def test_any_text_is_read(values: list[str], date: str) -> None:
    assert all(one.scheme for one in challenges(values))
    found = retry_after(date, date)
    assert found is None or found >= 0
    assert [one.scheme for one in challenges([*values, 'Basic realm="a"'])][-1] == "basic"
