from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bkrules.action import parameters
from bkrules.errors import MachineLacks
from bkrules.why import KEY, PREVIOUS, compare, difference, explain, read_key

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
    ],
)
def test_the_first_difference_is_said(change: Mapping[str, str], said: str) -> None:
    assert str(difference(LEAVES, {**LEAVES, **change})) == said


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
        explain(None, {}, kept(), cached=False, waits_for="//:go FetchWheel")
        == "would run: //:go FetchWheel would run first"
    )
    assert say(kept(), cached=False) == "would run: nothing is known of an earlier run"
    assert say(kept(key=("k0", other)), cached=False) == "would run: input/x was sha256:0 and is sha256:1"
    assert say(kept(key=("k1", LEAVES)), cached=False).startswith("would run: its last result is not in the cache")
    assert say(kept(), cached=True) == "cached"
    assert say(kept(key=("k1", LEAVES)), cached=True) == "cached"
    ran = kept(key=("k1", LEAVES), previous_key=("k0", other))
    assert say(ran, cached=True) == "cached; it ran in the last build: input/x was sha256:0 and is sha256:1"
    assert (KEY, PREVIOUS) == ("key.json", "previous_key.json")


def test_comparing_with_another_run() -> None:
    say = partial(compare, "k1", LEAVES, waits_for="")

    assert say(kept(key=("k1", LEAVES))) == "the same key"
    assert say(kept(key=("k0", {**LEAVES, "env/HOME": "/"}))) == "another key: env/HOME was / and is /root"
    assert say(kept()) == "that run kept no key of it"


def test_keys_are_read_from_a_folder_and_from_a_server(tmp_path: Path) -> None:
    (tmp_path / "cell").mkdir()
    (tmp_path / "cell/key.json").write_text(json.dumps({"key": "k", "leaves": LEAVES}))
    (tmp_path / "cell/previous_key.json").write_text("{")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        for place in (str(tmp_path), f"http://127.0.0.1:{server.server_port}"):
            found = read_key(f"{place}/cell", KEY)
            assert found is not None
            assert found["key"] == "k"
            assert read_key(f"{place}/none", KEY) is None
            with pytest.raises(MachineLacks, match="cannot read"):
                read_key(f"{place}/cell", PREVIOUS)
        server.shutdown()
