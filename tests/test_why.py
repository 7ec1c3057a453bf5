from __future__ import annotations

import itertools
import json
import shutil
import threading
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rounds import rounds

from bkrules.errors import MachineLacks, UsageError
from bkrules.execution.layout import KEY, PREVIOUS
from bkrules.model import digest
from bkrules.model.action import Action, DirectoryNode, FileNode, Node, key_of, parameters
from bkrules.model.label import Label
from bkrules.report.explain import compare, difference, explain, opened

LEAVES = {
    "argument/0": parameters({"axes": {"a": 1}, "test": "t"}),
    "env/HOME": "/root",
    "input/x": "sha256:1",
    "platform/ISA": "x",
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"input/x": "sha256:2"}, "input/x was sha256:1 and is sha256:2"),
        ({"input/y": "sha256:2"}, "input/y is new: sha256:2"),
        ({"env/HOME": "/home", "input/x": "sha256:2"}, "env/HOME was /root and is /home (and 1 more)"),
        ({"argument/0": parameters({"axes": {"a": 2}, "test": "t"})}, "axes.a was 1 and is 2"),
        ({"argument/0": parameters({"axes": {"b": 1}, "test": "u"})}, "axes.a is gone; it was 1 (and 2 more)"),
        ({"argument/0": "no json"}, 'argument was {"axes": {"a": 1}, "test": "t"} and is "no json"'),
        ({"input/x": "s" * 100}, f"input/x was sha256:1 and is {'s' * 72}..."),
        ({"env/HOME": ""}, 'env/HOME was "/root" and is ""'),
        ({"env/HOME": "/root "}, 'env/HOME was "/root" and is "/root "'),
        ({"env/HOME": "/root\n"}, 'env/HOME was "/root" and is "/root\\n"'),
        ({"env/NEW": ""}, 'env/NEW is new: ""'),
        ({"argument/0": parameters({"axes": {"a": 1.0}, "test": "t"})}, "axes.a was 1 and is 1.0"),
        ({"argument/0": parameters({"axes": {"a": True}, "test": "t"})}, "axes.a was 1 and is true"),
        ({"argument/0": parameters({"axes": {"a": "1"}, "test": "t"})}, 'axes.a was 1 and is "1"'),
        ({"argument/0": parameters({"axes": {"a": 1, "b": None}, "test": "t"})}, "axes.b is new: null"),
        ({"argument/0": parameters({"axes": {"a": None}, "test": "t"})}, "axes.a was 1 and is null"),
        ({"argument/0": parameters({"axes": {}, "test": "t"})}, "axes.a is gone; it was 1"),
        (
            {"argument/0": '{"test":"t","axes":{"a":1}}'},
            'argument/0 was {"axes":{"a":1},"test":"t"} and is {"test":"t","axes":{"a":1}}',
        ),
    ],
)
def test_the_first_difference_is_said(change: Mapping[str, str], said: str) -> None:
    assert str(difference(LEAVES, {**LEAVES, **change})) == said


LONG = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (LONG, f"executable {LONG}", f"was {LONG} and is executable {'sha256:' + 'a' * 54}..."),
        (f"{LONG} one", f"{LONG} two", "was ...aaaaaaaaaaaaaaa one and is ...aaaaaaaaaaaaaaa two"),
        (LONG, f"{LONG}b", "was ...aaaaaaaaaaaaaaaa and is ...aaaaaaaaaaaaaaaab"),
        (
            f"{'x' * 100}1{'y' * 100}",
            f"{'x' * 100}2{'y' * 100}",
            f"was ...{'x' * 16}1{'y' * 55}... and is ...{'x' * 16}2",
        ),
        ("caf\u00e9", "cafe\u0301", 'was "caf\\u00e9" and is "cafe\\u0301"'),
        ("a b", "a\u00a0b", 'was "a b" and is "a\\u00a0b"'),
        ("a", "a\u200b", 'was "a" and is "a\\u200b"'),
    ],
)
def test_two_values_are_never_shown_as_one(old: str, new: str, said: str) -> None:
    found = str(difference({"input/x": old}, {"input/x": new}))

    assert found.startswith(f"input/x {said}")
    assert "\n" not in found


@settings(max_examples=rounds(500))
@given(
    st.text(max_size=200),
    st.text(max_size=200),
    st.text(max_size=5),
    st.text(max_size=5),
    st.sampled_from(["input/x", "argument/0", "env/A"]),
)
def test_values_that_share_most_are_shown_apart(before: str, after: str, one: str, other: str, leaf: str) -> None:
    old, new = before + one + after, before + other + after
    found = difference({leaf: old}, {leaf: new})
    if old == new:
        assert found is None
        return
    assert found is not None
    was, _, now = str(found).removeprefix(f"{found.leaf} was ").rpartition(" and is ")
    assert str(found).isprintable()
    assert was != now or " and is " in was


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats(-2, 2) | st.sampled_from(["", "1", "true", "null", "a"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", ""]), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=rounds(500))
@given(VALUES, VALUES)
def test_arguments_that_differ_are_shown_apart(old: object, new: object) -> None:
    found = difference({"argument/0": parameters(old)}, {"argument/0": parameters(new)})

    assert (found is None) == (parameters(old) == parameters(new))
    if found is not None:
        assert found.old != found.new
        text = str(found).removeprefix(f"{found.leaf} was ").partition(" (and ")[0]
        if found.old is not None and found.new is not None:
            was, _, now = text.partition(" and is ")
            assert was != now


def test_a_key_that_differs_in_nothing_that_it_names() -> None:
    """As one of another version of bk may."""
    say = partial(explain, "k1", LEAVES, waits_for="")

    assert "another version of bk" in say(kept(key=("k0", LEAVES)), cache=None)
    assert "another version of bk" in say(kept(key=("k1", LEAVES), previous_key=("k0", LEAVES)), cache="disk")
    assert "another version of bk" in compare("k1", LEAVES, kept(key=("k0", LEAVES)), waits_for="")


def test_leaves_name_all_that_a_key_covers() -> None:
    """Of two actions with the same leaves, the keys are the same: each field, and each property of an input, is in one."""
    one = digest.of_bytes(b"")
    action = Action("x", Label("a", "b"), "M", ("{}",), (), ("out",), (("A", ""),), (("P", ""),), 1)
    node = FileNode(one, "/x")
    nodes: list[Node] = [node, replace(node, executable=True), DirectoryNode(), FileNode(DirectoryNode().digest, "/x")]
    actions = [
        action,
        replace(action, mnemonic="N"),
        replace(action, arguments=()),
        replace(action, arguments=("",)),
        replace(action, arguments=("", "")),
        replace(action, outputs=()),
        replace(action, outputs=("", "out")),
        replace(action, environment=()),
        replace(action, environment=(("A", "1"),)),
        replace(action, platform=()),
        replace(action, timeout=0),
    ]
    keys = [key_of(action, {"i": one}) for one in nodes] + [key_of(one, {}) for one in actions]

    for first, second in itertools.combinations(keys, 2):
        assert (first.digest == second.digest) == (first.leaves == second.leaves)


def test_the_files_of_a_folder_that_users_edit_are_leaves() -> None:
    action = Action("x", Label("a", "b"), "M", ("{}",), (), ("out",))
    one, two = (FileNode(digest.of_bytes(data), "/x") for data in (b"1", b"2"))
    before = {"p/a.go": one, "p/b.go": one}
    old, new, plain = (
        key_of(action, {"src": node})
        for node in (
            DirectoryNode(before, edited=True),
            DirectoryNode({**before, "p/b.go": two}, edited=True),
            DirectoryNode(before),
        )
    )

    assert str(difference(old.leaves, new.leaves)) == f"input/src/p/b.go was {one.digest} and is {two.digest}"
    assert old.digest == plain.digest
    assert plain.leaves.keys() == old.leaves.keys() - {"input/src/p/a.go", "input/src/p/b.go"}


def test_equal_keys_do_not_differ() -> None:
    assert difference(LEAVES, dict(LEAVES)) is None


def kept(**keys: Any) -> Any:
    """What a run kept, by the name of the file without its ending."""
    files = {f"{name}.json": {"key": key, "leaves": leaves} for name, (key, leaves) in keys.items()}
    return files.get


def test_what_is_said_of_an_action() -> None:
    other = {**LEAVES, "input/x": "sha256:0"}
    say = partial(explain, "k1", LEAVES, waits_for="//:go FetchWheel")

    assert (
        explain(None, {}, kept(), cache=None, waits_for="//:go FetchWheel")
        == "would run: //:go FetchWheel would run first"
    )
    assert say(kept(), cache=None) == "would run: no earlier run is known"
    assert say(kept(key=("k0", other)), cache=None) == "would run: input/x was sha256:0 and is sha256:1"
    assert say(kept(key=("k1", LEAVES)), cache=None).startswith("would run: its last result is not in the cache")
    assert say(kept(), cache="disk") == "cached"
    assert say(kept(key=("k1", LEAVES)), cache="disk") == "cached"
    assert say(kept(key=("k1", LEAVES)), cache="remote") == "cached in the remote cache"
    ran = kept(key=("k1", LEAVES), previous_key=("k0", other))
    assert say(ran, cache="disk") == "cached; it ran in the last build: input/x was sha256:0 and is sha256:1"
    assert say(kept(), cache="disk", skip="no wings") == "skipped (cached): no wings"
    assert say(ran, cache="remote", skip="").startswith(
        "skipped (cached in the remote cache); it ran in the last build: "
    )
    assert (KEY, PREVIOUS) == ("key.json", "previous_key.json")


def test_comparing_with_another_run() -> None:
    say = partial(compare, "k1", LEAVES, waits_for="")

    assert say(kept(key=("k1", LEAVES))) == "the same key"
    assert say(kept(key=("k0", {**LEAVES, "env/HOME": "/"}))) == "another key: env/HOME was / and is /root"
    assert say(kept()) == "that run has no key of it"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The bk-out of a run, with a key, and one that is cut short."""
    folder = tmp_path / "run/bk-out/t/cell"
    folder.mkdir(parents=True)
    (folder / "key.json").write_text(json.dumps({"key": "k", "leaves": LEAVES}))
    (folder / "previous_key.json").write_text("{")
    return tmp_path / "run/bk-out"


def read_from(place: str) -> None:
    with opened(place, must_exist=True) as read:
        found = read("t/cell/key.json")
        assert found is not None
        assert (found["key"], found["leaves"]) == ("k", LEAVES)
        assert read("t/none/key.json") is None
        assert read("cel/key.json") is None
        with pytest.raises(MachineLacks, match="cannot read"):
            read("t/cell/previous_key.json")


def test_keys_are_read_from_a_folder_and_from_a_server(run: Path) -> None:
    handler = partial(SimpleHTTPRequestHandler, directory=str(run))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        for place in (str(run), f"http://127.0.0.1:{server.server_port}"):
            read_from(place)
        server.shutdown()


def test_any_name_is_read_from_a_server(run: Path) -> None:
    name = "test_it[#1]?x=%41 é"
    (run / "t/cell").rename(run / "t" / name)
    handler = partial(SimpleHTTPRequestHandler, directory=str(run))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        with opened(f"http://127.0.0.1:{server.server_port}", must_exist=True) as read:
            found = read(f"t/{name}/key.json")
        server.shutdown()
    assert found is not None
    assert found["key"] == "k"


@pytest.mark.parametrize("kind", ["zip", "tar", "gztar"])
@pytest.mark.parametrize("top", ["bk-out", "."])
def test_keys_are_read_from_an_archive(run: Path, tmp_path: Path, kind: str, top: str) -> None:
    """With the folder in it, or only what is in the folder, as different CI servers pack it."""
    if top == "bk-out":
        read_from(shutil.make_archive(str(tmp_path / "run"), kind, run.parent, "bk-out"))
    else:
        read_from(shutil.make_archive(str(tmp_path / "run"), kind, run))


def test_where_no_run_is(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no archive")
    for place, words in (("none", "there is nothing at"), ("text", "neither a zip nor a tar")):
        with pytest.raises(UsageError, match=words), opened(str(tmp_path / place), must_exist=True):
            pass
    with opened(str(tmp_path / "none"), must_exist=False) as read:
        assert read("t/cell/key.json") is None


def test_a_file_that_is_no_key(run: Path) -> None:
    (run / "t/cell/key.json").write_text("[]")
    with opened(str(run), must_exist=True) as read, pytest.raises(MachineLacks, match="it holds no key"):
        read("t/cell/key.json")
