"""The start of pytest, as far as all cells share it: made in the zygote, so that each cell takes a quarter less CPU for pytest.

These are the plugin manager and the options with pytest's own plugins, which pytest makes before it looks at anything of a
test, and the fixtures of these plugins. The rest is pytest's: conftest.py files, plugins and settings act as ever.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import _pytest.config
import pytest
from _pytest.fixtures import FixtureFunctionDefinition, FixtureManager

from bkrules.model.parameters import DEFAULTS
from bkrules.testing import pytest_plugin
from bkrules.testing.collection import arguments

KNOWN = (9, 2)
"""The release of pytest whose private parts this module knows. Any other one starts in each cell as a whole."""
_DEBUG = "PYTEST_DEBUG"  # traces the plugin manager from its begin
_PLUGIN = "-p"
_PROGRAM = "pytest.main()"
_MADE: list[pytest.Config] = []
_FIXTURES: dict[ModuleType, tuple[dict[str, object], ModuleType]] = {}
_get_config, _plugin_registered = _pytest.config.get_config, FixtureManager.pytest_plugin_registered


def prepare() -> None:
    """Make what cells share, once."""
    if _FIXTURES or pytest.version_tuple[:2] != KNOWN or _DEBUG in os.environ:
        return
    config = _get_config(arguments(DEFAULTS), prog=_PROGRAM)
    for plugin in (*config.pluginmanager.get_plugins(), pytest_plugin):
        if isinstance(plugin, ModuleType):
            _FIXTURES[plugin] = (dict(vars(plugin)), _fixtures_of(plugin))
    FixtureManager.pytest_plugin_registered = _fixtures_registered  # type: ignore[method-assign]
    _MADE.append(config)


def run(words: list[str], plugins: Sequence[object]) -> int:
    """Run pytest with these arguments and plugins. Return its exit code."""
    if _MADE and _DEBUG not in os.environ and _plugins_in(words) == _plugins_in(arguments(DEFAULTS)):
        _pytest.config.get_config = _made  # type: ignore[assignment]
    return int(pytest.main(words, plugins=plugins))


def _made(words: list[str], plugins: Sequence[object], *, prog: str | None) -> pytest.Config:
    """Return the configuration of this process for its first run of pytest. A test that runs pytest gets a new one."""
    _pytest.config.get_config = _get_config
    assert prog == _PROGRAM, prog
    config = _MADE.pop()
    config.invocation_params = pytest.Config.InvocationParams(args=words, plugins=plugins, dir=Path.cwd())
    return config


def _plugins_in(words: Sequence[str]) -> list[str]:
    """Return the arguments that name plugins. Those to leave out act before all others."""
    pairs = zip(words, [*words[1:], ""], strict=True)
    return [f"{word} {after}" if word == _PLUGIN else word for word, after in pairs if word.startswith(_PLUGIN)]


def _fixtures_of(module: ModuleType) -> ModuleType:
    """Return a module with the fixtures of another one alone."""
    fixtures = ModuleType(module.__name__)
    vars(fixtures).update(
        {name: value for name, value in vars(module).items() if type(value) is FixtureFunctionDefinition}
    )
    return fixtures


def _fixtures_registered(self: FixtureManager, plugin: object, plugin_name: str) -> None:
    """Register the fixtures of a plugin. In a known module that nobody has changed, only these are looked at."""
    if isinstance(plugin, ModuleType) and plugin in _FIXTURES:
        before, fixtures = _FIXTURES[plugin]
        plugin = fixtures if vars(plugin) == before else plugin
    _plugin_registered(self, plugin, plugin_name)
