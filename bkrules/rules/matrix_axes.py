"""The axes of a matrix, and what their values change."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress

from bkrules.analysis.context import Context
from bkrules.analysis.updaters import TOOLS, meant
from bkrules.errors import did_you_mean
from bkrules.model.label import Label, LabelError, parse_label
from bkrules.model.providers import WorkerInfo
from bkrules.model.rule import Target
from bkrules.plugin.installed import Plugins


def read_axes(context: Context) -> dict[str, dict[str, object]]:
    """Return the values of each axis by their names. Raises LoadError."""
    axes = context.attribute("axes")
    for axis, values in axes.items():
        if axis in ("worker", "test") or not axis.isidentifier():
            raise context.error(
                "bad-axis",
                f"{axis!r} cannot be the name of an axis",
                "axes",
                "use a word that is not 'worker' or 'test'",
            )
        if (
            not isinstance(values, dict)
            or not values
            or not all(isinstance(name, str) and name and "/" not in name for name in values)
        ):
            listed = values if isinstance(values, list | tuple) and values else ["gzip"]
            hint = f"for example { ({one: one for one in listed if isinstance(one, str)}) }"
            message = f"the axis {axis!r} must map names to values, but was {values!r}"
            raise context.error("bad-axis", message, "axes", hint)
    return dict(axes)


def _tables(axes: object) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Yield the tables of tools in the values of axes, each with its place."""
    for axis, values in axes.items() if isinstance(axes, dict) else ():
        for choice, value in values.items() if isinstance(values, dict) else ():
            table = value.get(TOOLS) if isinstance(value, dict) else None
            if isinstance(table, dict):
                yield f"{axis}={choice}", table


def check_values(
    context: Context, axes: Mapping[str, Mapping[str, object]], workers: Iterable[WorkerInfo], more: Collection[str]
) -> None:
    """Raise LoadError for a tool in the value of an axis that no worker runs, and for a value that changes no worker although it
    looks so.
    """
    known = {name for worker in workers for name in worker.tools}
    for axis, values in axes.items():
        for choice, value in values.items():
            if found := meant(value, more, known):
                what = f"the value {axis}={choice} has the key {found[0]!r}, which changes nothing"
                hint = f"did you mean {found[1]}? A parameter of the test may have it one level deeper"
                raise context.error("bad-axis", what, "axes", hint)
    if any(worker.fault for worker in workers):
        return  # its tools are unknown
    for place, table in _tables(axes):
        for name in table:
            if name not in known:
                hint = did_you_mean(name, known, "tools of its workers")
                raise context.error("unknown-tool", f"the value {place}: no worker here runs {name!r}", "axes", hint)


def matrix_tools(target: Target, _plugins: Plugins) -> list[Label]:
    """Return the binaries that values of axes name. The analysis reports text that is no label."""
    found = []
    for _, table in _tables(target.attributes["axes"]):
        for text in table.values():
            if isinstance(text, str):
                with suppress(LabelError):
                    found.append(parse_label(text, target.label.package))
    return found
