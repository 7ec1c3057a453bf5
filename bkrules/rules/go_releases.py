"""`go_releases`: a go_binary target for each release of a command."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from bkrules.analysis.context import Context
from bkrules.errors import LoadError
from bkrules.model.label import Label
from bkrules.model.rule import Attr, Location, Rule
from bkrules.model.semver import version_of
from bkrules.rules.go import GO_BINARY

VERSION, NUMBER = "{version}", "{number}"
"""Words in attributes of which each target has its own: its version, such as v1.2.3, and the same without the `v`."""
_SAME = {
    name: one for name, one in GO_BINARY.attributes.items() if name not in ("mod", "module", "version", "srcs", "out")
}


def _analyze(context: Context) -> tuple[object, ...]:
    raise AssertionError(f"{context.label} is a go_releases, of which loading makes go_binary targets")


def _expand(label: Label, given: Mapping[str, Any], where: Location) -> Iterable[tuple[Rule, dict[str, Any]]]:
    """Return a go_binary for each version, with all further attributes. Raises LoadError for a list that names no releases."""
    versions = given["versions"]
    wrong = next((text for text in versions if version_of(text) is None), None)
    twice = next((text for text in versions if versions.count(text) > 1), None)
    if wrong is not None or twice is not None or not versions:
        what = "names no version"
        what = f"has {wrong!r}, but a version is written as in 'v1.2.3'" if wrong is not None else what
        what = f"has {twice!r} twice" if twice is not None else what
        raise LoadError("bad-version", f"{label}: 'versions' {what}", where=where.of("versions"))
    pins = given.get("pins") or _folder(given["module"])
    same = {name: value for name, value in given.items() if name not in ("name", "versions", "pins")}
    for version in versions:
        values = {name: _filled(value, version) for name, value in same.items()}
        names = {"name": f"{label.name}_{version}", "out": label.name, "mod": f"{pins}/{version}/go.mod"}
        yield GO_BINARY, {**values, "version": version, **names}


def _folder(module: str) -> str:
    """Return the last part of a module's path that is not its major version."""
    return re.sub(r"/v\d+$", "", module).rpartition("/")[2]


def _filled(value: Any, version: str) -> Any:
    if isinstance(value, str):
        return value.replace(VERSION, version).replace(NUMBER, version.removeprefix("v"))
    return [_filled(one, version) for one in value] if isinstance(value, list | tuple) else value


GO_RELEASES = Rule(
    "go_releases",
    "A go_binary for each of several releases, such as `buildkitd_v0.34.2` for the name `buildkitd`. Every binary's file has the "
    "name alone. `bk pin` writes their go.mod and go.sum.",
    {
        "module": Attr("string", "The module to build from, as in 'github.com/moby/buildkit'.", required=True),
        "versions": Attr("strings", "The releases, as in ['v0.33.0', 'v0.34.2'].", required=True),
        "pins": Attr(
            "string",
            "The folder with a folder for each version, in which go.mod and go.sum are. The default is the last part of the "
            "module's path, such as `buildkit`: `buildkit/v0.34.2/go.mod`.",
        ),
        **{
            name: replace(one, doc=f"{one.doc} `{VERSION}` and `{NUMBER}` stand for v1.2.3 and 1.2.3.")
            if name == "ldflags"
            else one
            for name, one in _SAME.items()
        },
    },
    _analyze,
    expand=_expand,
)
