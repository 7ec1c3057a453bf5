"""What a plugin's fault in a hook of bk's own process becomes: an error that names the plugin and the hook."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pluggy
import pytest

from bkrules.analysis import own_hooks, test_marks
from bkrules.errors import UsageError
from bkrules.model.action import Cell
from bkrules.model.label import Label
from bkrules.plugin import calls, spec
from bkrules.plugin.calls import Hooks, PluginFault
from bkrules.plugin.guard import text_of
from bkrules.plugin.host import probe
from bkrules.plugin.installed import Plugins
from bkrules.plugin.worker import Mirror

CALLED = sorted(set(spec.HOOKS) - spec.CELL_HOOKS - {one for one in spec.HOOKS if one.startswith("bk_register")})
ANALYSIS: dict[str, Callable[[Plugins, Any], Any]] = {
    "bk_configure": lambda plugins, worker: own_hooks.configuration(plugins, worker, Mirror("127.0.0.1:5000", ())),
    "bk_cache_key": own_hooks.cache_key,
    "bk_preflight": lambda plugins, worker: own_hooks.lacks(plugins, worker, probe()),
    "bk_skip_cell": lambda plugins, worker: own_hooks.skipped(
        plugins, Cell(Label("t", "m"), "test_it", "oci", ()), worker, test_marks.Test("test_it", 1, ()), ()
    ),
}


def plugins(hook: str, answer: Callable[[], Any]) -> Plugins:
    """Plugins of which one implements `hook` by a function of this module."""
    manager = pluggy.PluginManager(spec.GROUP)
    manager.add_hookspecs(spec)
    manager.register(Odd(hook, answer))
    return Plugins({}, {}, hooks=Hooks(manager, {__name__: "bk-odd 1.0"}))


class Odd:
    """A plugin with one hook."""

    def __init__(self, hook: str, answer: Callable[[], Any]) -> None:
        def implementation() -> Any:
            return answer()

        spec.hookimpl(implementation)
        setattr(self, hook, implementation)


def arguments_of(hook: str) -> dict[str, None]:
    return dict.fromkeys(inspect.signature(getattr(spec, hook)).parameters)


@pytest.mark.parametrize("hook", CALLED)
@pytest.mark.parametrize("fault", [KeyError("why"), SystemExit(0), MemoryError()], ids=["raise", "exit", "memory"])
def test_a_hook_that_raises_is_named(hook: str, fault: BaseException) -> None:
    def answer() -> None:
        raise fault

    with pytest.raises(PluginFault) as caught:
        plugins(hook, answer).hooks.call(hook, **arguments_of(hook))

    assert caught.value.message == f"the plugin bk-odd 1.0 failed in {hook}: {text_of(fault)}"
    assert caught.value.where.startswith(f"{__file__}:")
    assert caught.value.hint == "leave it out with --noplugin=bk-odd"
    assert caught.value.exit_code == 1


def test_an_exception_that_cannot_be_printed_is_named() -> None:
    class Silent(Exception):
        def __str__(self) -> str:
            raise ValueError

    def answer() -> None:
        raise Silent

    with pytest.raises(PluginFault, match="failed in bk_summary: Silent"):
        plugins("bk_summary", answer).hooks.call("bk_summary", build=None)


@pytest.mark.parametrize("hook", CALLED)
def test_a_hook_that_hangs_is_named(hook: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "SECONDS", 0.1)
    with pytest.raises(PluginFault) as caught:
        plugins(hook, lambda: time.sleep(60)).hooks.call(hook, **arguments_of(hook))

    assert caught.value.message == f"the plugin bk-odd 1.0 failed in {hook}: it took longer than 0.1 s"


@pytest.mark.parametrize(
    ("hook", "answer"),
    [
        ("bk_cache_key", "x"),
        ("bk_cache_key", {"x": 1}),
        ("bk_cache_key", [("x", "y")]),
        ("bk_preflight", ("no fuse",)),
        ("bk_preflight", "no fuse"),
        ("bk_skip_cell", True),
        ("bk_skip_cell", ""),
        ("bk_skip_cell", "two\nlines"),
    ],
)
def test_an_answer_of_another_type_is_named(hook: str, answer: object, a_worker: Any) -> None:
    with pytest.raises(PluginFault) as caught:
        ANALYSIS[hook](plugins(hook, lambda: answer), a_worker)

    assert caught.value.message == f"the plugin bk-odd 1.0 returned {answer!r} from {hook}"


def test_what_plugins_say_is_joined(a_worker: Any) -> None:
    assert own_hooks.cache_key(plugins("bk_cache_key", lambda: {"odd.level": "1"}), a_worker)["odd.level"] == "1"
    reason = ANALYSIS["bk_skip_cell"](plugins("bk_skip_cell", lambda: "not on Sundays"), a_worker)
    assert reason == "not on Sundays"


def test_a_plugin_that_skips_cells_is_asked_about_each() -> None:
    assert own_hooks.skips_tests(plugins("bk_cache_key", dict))
    assert not own_hooks.skips_tests(plugins("bk_skip_cell", lambda: None))


def test_a_name_of_two_plugins_in_a_key_is_an_error(a_worker: Any) -> None:
    there = plugins("bk_cache_key", lambda: {"level": "1"})
    there.hooks.add(Odd("bk_cache_key", lambda: {"level": "2"}))
    with pytest.raises(PluginFault, match="returned"):
        own_hooks.cache_key(there, a_worker)


def test_a_listener_that_fails_hears_nothing_more() -> None:
    heard: list[str] = []

    def answer() -> None:
        heard.append("odd")
        raise ValueError("no")

    hooks = plugins("bk_action_started", answer).hooks
    own = type("Own", (Odd,), {"__module__": "bkrules.own"})("bk_action_started", lambda: heard.append("own"))
    hooks.add(own)
    for _ in range(2):
        hooks.tell("bk_action_started", action=None)

    assert heard == ["own", "odd", "own"]
    assert [str(fault).splitlines()[0] for fault in hooks.faults] == [
        "the plugin bk-odd 1.0 failed in bk_action_started: ValueError: no"
    ]


def test_the_other_hooks_of_a_plugin_whose_listener_fails_are_called(a_worker: Any) -> None:
    there = plugins("bk_action_started", lambda: 1 / 0)
    there.hooks.add(Odd("bk_skip_cell", lambda: "not on Sundays"))  # of this module, so of the same plugin
    there.hooks.tell("bk_action_started", action=None)

    assert len(there.hooks.faults) == 1
    assert ANALYSIS["bk_skip_cell"](there, a_worker) == "not on Sundays"


def test_the_limit_of_plugins_is_none_of_bk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "SECONDS", 0.1)
    hooks = plugins("bk_action_started", lambda: None).hooks
    hooks.add(type("Own", (Odd,), {"__module__": "bkrules.own"})("bk_action_started", lambda: time.sleep(0.3)))

    hooks.tell("bk_action_started", action=None)

    assert hooks.faults == []


def test_an_error_of_bks_own_kind_is_the_plugins_too() -> None:
    def answer() -> None:
        raise UsageError("usage", "no such thing")

    with pytest.raises(PluginFault, match=r"the plugin bk-odd 1\.0 failed in bk_summary: UsageError: no such thing"):
        plugins("bk_summary", answer).hooks.call("bk_summary", build=None)


def test_bk_classifies_what_no_plugin_does() -> None:
    own = type("Own", (Odd,), {"__module__": "bkrules.own"})("bk_classify_failure", lambda: "test")
    for answer, expected in ((None, "test"), ("infrastructure", "infrastructure")):
        hooks = plugins("bk_classify_failure", partial(str, answer) if answer else lambda: None).hooks
        hooks.add(own)
        assert hooks.call("bk_classify_failure", **arguments_of("bk_classify_failure")) == expected


@pytest.fixture
def a_worker() -> Any:
    from bkrules.plugin.manager import load

    return load().workers["oci"].from_settings({})
