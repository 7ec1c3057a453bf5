"""The settings of a repository's own pytest configuration that decide which tests exist.

Cells run pytest without the repository's configuration file, which is not among their inputs. These settings and
options still apply in cells, since they decide what is a test, its name, and what it can import.
"""

from __future__ import annotations

import os
import shlex
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bkrules.errors import LoadError, is_near
from bkrules.model.parameters import PytestSettings

FILES = ("pytest.toml", ".pytest.toml", "pytest.ini", ".pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg")
"""The files in which pytest looks for settings in a folder, in this order."""
COLLECTION = {
    *("collect_imported_tests", "consider_namespace_packages", "doctest_encoding", "doctest_optionflags"),
    *("disable_test_id_escaping_and_forfeit_all_rights_to_community_support", "empty_parameter_set_mark"),
    *(
        "parametrize_long_str_id_strategy",
        "python_classes",
        "python_functions",
        "strict_parametrization_ids",
        "usefixtures",
    ),
}
_PATH = "pythonpath"
_IMPORT_MODE = "--import-mode"
_FLAGS = ("--doctest-modules", "--doctest-ignore-import-errors")
_VALUES = ("-p", "-k", "-m", "--deselect", _IMPORT_MODE)
_NO_PLUGIN = "no:"


@dataclass(frozen=True)
class Settings:
    """The settings of a test file.

    `overrides` are settings as pytest's `-o` takes them, `options` words of a command line, and `paths` folders of the
    workspace on Python's path.
    """

    overrides: tuple[tuple[str, str], ...] = ()
    options: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()

    @property
    def plugins(self) -> tuple[str, ...]:
        """The modules that `-p` loads."""
        return tuple(after for word, after in zip(self.options, self.options[1:], strict=False) if word == "-p")

    @property
    def change_collection(self) -> bool:
        """Whether collection by syntax needs more than pytest's defaults."""
        return bool(self.overrides) or any(not word.startswith(_IMPORT_MODE) for word in self.options)

    @property
    def parameters(self) -> PytestSettings:
        """The settings as a parameter of an action."""
        return PytestSettings(self.options, dict(self.overrides), self.paths)


DEFAULTS = Settings()


def settings_of(test: str, read: Callable[[str], bytes | None]) -> Settings:
    """Return the settings for the test file at that path of the workspace; `read` returns the bytes of a file, or None.

    Raises LoadError for a malformed configuration file.
    """
    folder = os.path.dirname(test)
    while True:
        for name in FILES:
            path = f"{folder}/{name}".lstrip("/")
            data = read(path)
            table = None if data is None else _table(path, name, data)
            if table is not None:
                _check_names(table, path)
                return _settings(table, folder)
        if not folder:
            return DEFAULTS
        folder = os.path.dirname(folder)


def _table(path: str, name: str, data: bytes) -> Mapping[str, Any] | None:
    """Return the settings in a file; None when it has none, so that pytest searches on."""
    own = "pytest" in name
    if not own and b"pytest" not in data:
        return None
    try:
        text = data.decode()
        return _toml(text, own=name != "pyproject.toml") if name.endswith(".toml") else _ini(path, text, name, own=own)
    except (UnicodeDecodeError, ValueError) as error:
        raise LoadError("bad-configuration", f"pytest cannot read its configuration: {error}", where=path) from error


def _toml(text: str, *, own: bool) -> Mapping[str, Any] | None:
    document = tomllib.loads(text)
    section = document.get("pytest", {}) if own else document.get("tool", {}).get("pytest")
    if section is None or own:
        return section if isinstance(section, dict) else None
    table = section.get("ini_options", section)
    return table if isinstance(table, dict) else None


def _ini(path: str, text: str, name: str, *, own: bool) -> Mapping[str, Any] | None:
    from iniconfig import IniConfig, ParseError  # type: ignore[attr-defined,unused-ignore]

    try:
        sections = IniConfig(path, data=text)
    except ParseError as error:
        raise ValueError(str(error)) from error
    section = "tool:pytest" if name == "setup.cfg" else "pytest"
    if section in sections:
        return dict(sections[section].items())
    return {} if own else None


def _check_names(table: Mapping[str, Any], path: str) -> None:
    """Raise LoadError for a setting that is nearly one that decides which tests exist: no cell shows pytest's warning of it."""
    known = {*COLLECTION, _PATH, "addopts", "ini_options"}
    for name in table:
        if near := sorted(one for one in known if name not in known and is_near(name, one)):
            raise LoadError(
                "unknown-setting", f"pytest has no setting {name!r}", where=path, hint=f"did you mean {near[0]!r}?"
            )


def _settings(table: Mapping[str, Any], folder: str) -> Settings:
    overrides = {name: _text(value) for name, value in table.items() if name in COLLECTION}
    if _is_true(table.get("strict")) and "strict_parametrization_ids" not in table:
        overrides["strict_parametrization_ids"] = "true"
    options = table.get("addopts", ())
    words = shlex.split(options) if isinstance(options, str) else [str(option) for option in options]
    paths = table.get(_PATH, ())
    listed = shlex.split(paths) if isinstance(paths, str) else [str(path) for path in paths]
    below = [os.path.normpath(f"{folder}/{path}" if folder else path) for path in listed if not path.startswith("/")]
    inside = tuple("" if path == "." else path for path in below if not path.startswith(".."))
    return Settings(tuple(sorted(overrides.items())), tuple(_options(words)), inside)


def _options(words: Iterable[str]) -> Iterable[str]:
    """Return the options that decide which tests exist."""
    waiting = iter(words)
    for word in waiting:
        name, is_joined, value = word.partition("=")
        if name in _FLAGS:
            yield word
        elif name in _VALUES:
            value = value if is_joined else next(waiting, "")
        elif word[:2] in _VALUES and not word.startswith("--"):
            name, value = word[:2], word[2:]
        else:
            continue
        if name == _IMPORT_MODE:
            yield f"{name}={value}"
        elif name in _VALUES and not (name == "-p" and value.startswith(_NO_PLUGIN)):
            yield from (name, value)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return shlex.join(map(str, value)) if isinstance(value, list) else str(value)


def _is_true(value: Any) -> bool:
    return _text(value).strip().lower() in ("true", "1", "yes", "on") if value is not None else False
