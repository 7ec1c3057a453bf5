"""Axis values that change the worker."""

from __future__ import annotations

from typing import Any

import pytest

from bkrules.analysis.updaters import Update, Updaters, meant, merged, told
from bkrules.errors import LoadError
from bkrules.model.parameters import WorkerUpdate

SOURCES = {"t/daemons.py": "def offline(configuration): pass\ndef _own(): pass\n", "u/more.py": "def slow(c): yield\n"}
FILES = {"buildkitd.toml": {"root": "/r", "worker": {"oci": {"gc": False, "platforms": ["a"]}}}, "other.toml": {}}


def error(reason: str, message: str, attribute: str, hint: str) -> LoadError:
    return LoadError(reason, message, where=attribute, hint=hint)


def read(*values: object) -> Update:
    return Updaters(SOURCES, error).read([("axis", str(number), value) for number, value in enumerate(values)])


@pytest.mark.parametrize("value", ["esgz", 3, None, [1], {"host": 1}, {"value": 1}, {}])
def test_other_values_change_nothing(value: object) -> None:
    assert not read(value)
    assert told(value) == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"tool": 1}, ("tool", "'tools'")),
        ({"host": 1, "Flags": 1}, ("Flags", "'flags'")),
        ({"env": {"buildkitd": {}}}, ("env", "'environment'")),
        ({"enviroment": {}}, ("enviroment", "'environment'")),
        ({"args": {}}, ("args", "'flags'")),
        ({"config": ""}, ("config", "'buildkitd.toml'")),
        ({"runc": ":runc"}, ("runc", "{'tools': {'runc': LABEL}}")),
        ({"lazyy": 1}, ("lazyy", "'lazy'")),
        ({"flagz": 1}, ("flagz", "'flags'")),
        ({"buildkitd.yaml": ""}, ("buildkitd.yaml", "'buildkitd.toml'")),
        ({"tools": {}, "env": 1}, None),  # the value changes the worker, so `read` refuses its other keys
        *(
            (value, None)
            for value in ({"pools": 1}, {"host": {"tool": 1}}, {"value": 1}, {}, "tool", None, ["tool"], 3)
        ),
    ],
)
def test_a_key_that_looks_like_a_change_of_the_worker(value: object, expected: object) -> None:
    assert meant(value, ["lazy"], ["runc", "buildkitd"]) == expected


def test_a_test_sees_the_value_that_is_meant_for_it() -> None:
    value = {"buildkitd.toml": {"debug": True}, "value": 3}
    assert told(value) == 3
    del value["value"]
    assert told(value) == value


@pytest.mark.parametrize("document", [{"worker": {"oci": {"gc": True}}}, "[worker.oci]\ngc = true\n"])
def test_tables_are_merged_and_the_rest_is_replaced(document: object) -> None:
    update = read(
        {"buildkitd.toml": document}, {"buildkitd.toml": {"worker": {"oci": {"platforms": ["b"]}, "x": {"y": 1}}}}
    )
    assert merged(FILES, update, "oci", error) == {
        "buildkitd.toml": {"root": "/r", "worker": {"oci": {"gc": True, "platforms": ["b"]}, "x": {"y": 1}}},
        "other.toml": {},
    }
    assert FILES["buildkitd.toml"]["worker"] == {"oci": {"gc": False, "platforms": ["a"]}}
    assert update.parameters == WorkerUpdate()


def test_flags_variables_and_functions_of_all_axes_are_taken_together() -> None:
    update = read(
        {"flags": {"buildkitd": ["--a"]}, "environment": {"buildkitd": {"A": "1"}}, "updater": "slow"},
        {
            "flags": {"buildkitd": ["--b"], "other": ["-c"]},
            "environment": {"buildkitd": {"B": "2"}},
            "updater": "offline",
        },
    )
    assert update.parameters.to() == {
        "flags": {"buildkitd": ["--a", "--b"], "other": ["-c"]},
        "environment": {"buildkitd": {"A": "1", "B": "2"}},
        "functions": ["u/more.py::slow", "t/daemons.py::offline"],
    }


@pytest.mark.parametrize(
    ("value", "message", "hint"),
    [
        ({"buildkitd.toml": "a = "}, "axis=0 has a 'buildkitd.toml' that is not TOML", ""),
        ({"buildkitd.toml": 3}, "needs a dictionary as 'buildkitd.toml'", ""),
        ({"buildkitd.toml": {"a": None}}, "that TOML cannot express", ""),
        ({"buildkitd.toml": {}, "flag": {}}, "has no key 'flag'", "did you mean 'flags'?"),
        ({"flags": {"buildkitd": "--a"}}, "needs lists of strings in 'flags'", ""),
        (
            {"buildkitd.toml": {"registri": {}}},
            "has the key 'registri' in 'buildkitd.toml'",
            "did you mean 'registry'?",
        ),
        ({"buildkitd.toml": "[worker.ocii]\ngc = true"}, "the key 'worker.ocii'", "did you mean 'worker.oci'?"),
        ({"buildkitd.toml": {"worker": {"oci": {"gcc": True}}}}, "'worker.oci.gcc'", "did you mean 'worker.oci.gc'?"),
        ({"flags": ["--a"]}, "needs a dictionary as 'flags'", ""),
        ({"environment": {"buildkitd": {"A": 1}}}, "needs lists of strings in 'environment'", ""),
        ({"mirror": 429}, "needs a dictionary as 'mirror'", ""),
        ({"mirror": {"stat": 429}}, "has a 'mirror' with the unknown key 'stat'", "did you mean 'status'?"),
        ({"mirror": {"status": "429"}}, "'status' must be of the type int, but was '429'", ""),
        ({"mirror": {"times": True, "delay": 1}}, "'times' must be of the type int, but was True", ""),
        ({"mirror": {"status": 200}}, "'status' must be an error status, 400 to 599, but was 200", ""),
        ({"mirror": {"reset_after": -1}}, "'reset_after' must not be negative", ""),
        ({"mirror": {"status": 500, "reset_after": 1}}, "with both 'status' and 'reset_after'", ""),
        ({"mirror": {"delay": 1, "retry_after": 1}}, "with a 'retry_after' but no 'status'", ""),
        ({"mirror": {"later": True}}, "has a 'mirror' without a fault", ""),
        ({"updater": "ofline"}, "names no function 'ofline'", "did you mean 'offline'?"),
        ({"updater": "_own"}, "names no function '_own'", "offline, slow"),
    ],
)
def test_what_cannot_be_meant_is_an_error(value: object, message: str, hint: str) -> None:
    with pytest.raises(LoadError) as caught:
        read(value)
    assert (caught.value.reason, caught.value.where) == ("bad-axis", "axes")
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_keys_of_other_releases_of_buildkitd_are_no_mistakes() -> None:
    document = {
        "later": 1,
        "registry": {"ocii": {"gcc": 1}},
        "worker": {"runc": {}, "oci": {"gc": True, "other": {"gcc": 1}}},
    }
    assert read({"buildkitd.toml": document}).documents == (("axis=0", {"buildkitd.toml": document}),)


def test_a_file_that_the_worker_does_not_have() -> None:
    update = read({"containerd.toml": {"a": 1}})
    with pytest.raises(LoadError) as caught:
        merged(FILES, update, "oci", error)
    assert caught.value.reason == "unknown-file"
    assert "exclude = [{'worker': 'oci', 'axis': '0'}]" in caught.value.hint


def test_two_functions_of_one_name() -> None:
    with pytest.raises(LoadError) as caught:
        Updaters({"a.py": "def f(c): pass\n", "b.py": "\ndef f(c): pass\n"}, error)
    assert caught.value.message == "b.py:2 and a.py::f both have 'f'"


def test_a_file_that_is_not_python() -> None:
    with pytest.raises(SyntaxError) as caught:
        Updaters({"a.py": "def f("}, error)
    assert caught.value.filename == "a.py"


def test_the_documents_may_hold_what_toml_can() -> None:
    document: dict[str, Any] = {"a": [{"b": 1.5}], "c": {"d": True}}
    assert merged({"x.toml": {}}, read({"x.toml": document}), "oci", error) == {"x.toml": document}


def test_a_fault_of_the_mirror_is_told_as_it_was_written() -> None:
    fault = {"status": 429, "times": 2}
    assert read({"mirror": fault}).parameters == WorkerUpdate(mirror=fault)
    assert told({"mirror": fault, "value": 2}) == 2


def test_one_axis_says_what_the_mirror_does_wrong() -> None:
    with pytest.raises(LoadError, match="so has the value of another axis"):
        read({"mirror": {"delay": 1}}, {"mirror": {"delay": 2}})
