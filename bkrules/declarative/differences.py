"""The differences between results of one build: the few that differ from most others, and in what."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from bkrules.declarative.seen import CONFIG, DIGEST, FAILURE, LAYERS, PATHS, WHATS, Seen
from bkrules.model.wire import Wire

_SHOWN = 3
_WIDTH = 100
_ABSENT = "absent"

Fact = tuple[str, str]


@dataclass(frozen=True)
class Difference(Wire):
    """One fact in which a result differs from most others: what, at which path or key, its value, and that of the others."""

    cell: str
    what: str
    path: str
    value: str
    usual: str
    others: int


@dataclass(frozen=True)
class Agreement(Wire):
    """All differences between results of one build.

    `unused` are the expected differences that there are not. `consequences` follow from other differences of the same cell.
    `unknown` are facts that a cell does not have, each with the reason.
    """

    unexpected: tuple[Difference, ...] = ()
    expected: tuple[Difference, ...] = ()
    consequences: tuple[Difference, ...] = ()
    unused: tuple[Mapping[str, str], ...] = ()
    unknown: Mapping[str, str] = field(default_factory=dict)


def compare(
    results: Mapping[str, Seen], points: Mapping[str, Mapping[str, str]], expected: Sequence[Mapping[str, str]]
) -> Agreement:
    """Return the differences between results by the names of their cells.

    `points` are the worker and the axes of each cell. An entry of `expected` names differences by `what`, `path`, `worker` or an
    axis, each a pattern.
    """
    found = list(_differences(results))
    own = {one.cell for one in found if one.what not in (LAYERS, DIGEST, FAILURE)}
    layered = {one.cell for one in found if one.what == LAYERS}
    unexpected: list[Difference] = []
    meant: list[Difference] = []
    consequences: list[Difference] = []
    used: set[int] = set()
    for one in found:
        entries = [number for number, entry in enumerate(expected) if _names(entry, one, points[one.cell])]
        used.update(entries)
        follows = (one.what in (LAYERS, DIGEST) and one.cell in own) or (one.what == DIGEST and one.cell in layered)
        (meant if entries else consequences if follows else unexpected).append(one)
    unused = tuple(entry for number, entry in enumerate(expected) if number not in used)
    unknown = {cell: seen.unknown for cell, seen in results.items() if seen.unknown}
    return Agreement(tuple(unexpected), tuple(meant), tuple(consequences), unused, unknown)


def _names(entry: Mapping[str, str], one: Difference, point: Mapping[str, str]) -> bool:
    values = {"what": one.what, "path": one.path, **point}
    return all(fnmatchcase(values.get(name, ""), pattern) for name, pattern in entry.items())


def _differences(results: Mapping[str, Seen]) -> Iterator[Difference]:
    facts = {cell: _facts(seen) for cell, seen in results.items()}
    names = dict.fromkeys(fact for of_cell in facts.values() for fact in of_cell)
    for what, path in sorted(names, key=lambda fact: (WHATS.index(fact[0]), fact[1])):
        values = {}
        for cell, of_cell in facts.items():
            value = of_cell.get((what, path))
            if value is None and what in ("presence", CONFIG) and _is_comparable(results[cell], what):
                value = _ABSENT
            if value is not None:
                values[cell] = value
        if len(set(values.values())) > 1:
            usual = _usual(list(values.values()))
            count = sum(value == usual for value in values.values())
            for cell, value in values.items():
                if value != usual:
                    yield Difference(cell, what, path, value, usual, count)


def _is_comparable(seen: Seen, what: str) -> bool:
    return not seen.failure and not (what == CONFIG and seen.unknown)


def _usual(values: Sequence[str]) -> str:
    """Return the most frequent value; of several, the first."""
    counts = Counter(values)
    return max(counts, key=lambda value: (counts[value], -values.index(value)))


def _facts(seen: Seen) -> dict[Fact, str]:
    """Return all that is compared of a result: texts by what they tell, and of which path or key."""
    if seen.failure:
        return {(FAILURE, ""): f"the build failed: {seen.failure}"}
    found: dict[Fact, str] = {(FAILURE, ""): "the build passed"}
    for path, entry in seen.rootfs.items():
        found["presence", path] = "present"
        found["kind", path] = entry.kind
        values = {"mode": entry.mode, "owner": entry.owner, "content": entry.sha256, "link": entry.link}
        values |= {"device": entry.device, "xattrs": json.dumps(dict(entry.xattrs), sort_keys=True)}
        found |= {(what, path): value for what, value in values.items()}
    if not seen.unknown:
        found |= {(CONFIG, key): text for key, text in _flattened(seen.config, "")}
        found[LAYERS, ""] = " ".join(seen.layers)
        found[DIGEST, ""] = seen.digest
    return found


def _flattened(table: Mapping[str, object], start: str) -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flattened(value, f"{start}{key}.")
        else:
            yield f"{start}{key}", json.dumps(value, sort_keys=True)


def headlines(differences: Sequence[Difference]) -> list[str]:
    """Return a line for each kind of fact in which the same cells differ: "rootless: modes of /a and /b differ from 4 others"."""
    groups: dict[tuple[str, str], tuple[dict[str, None], list[Difference]]] = {}
    for (what, _), ones in _by_fact(differences).items():
        cells = dict.fromkeys(one.cell for one in ones)
        groups.setdefault((what, ", ".join(cells)), (cells, []))[1].extend(ones)
    return [_headline(what, list(cells), ones) for (what, _), (cells, ones) in groups.items()]


def _by_fact(differences: Sequence[Difference]) -> dict[Fact, list[Difference]]:
    found: dict[Fact, list[Difference]] = {}
    for one in differences:
        found.setdefault((one.what, one.path), []).append(one)
    return found


def _headline(what: str, cells: Sequence[str], ones: Sequence[Difference]) -> str:
    paths = list(dict.fromkeys(one.path for one in ones))
    others = f"{min(one.others for one in ones)} other{'' if min(one.others for one in ones) == 1 else 's'}"
    who = f"{_listed(cells, len(cells))}: "
    if what == FAILURE:
        return f"{who}{ones[0].value}, unlike {others}"
    if what == LAYERS:
        return f"{who}{_layers(ones[0])} from {others}, although each path is equal"
    if what == DIGEST:
        return f"{who}the digest differs from {others}, although each layer is equal"
    if what == CONFIG:
        return f"{who}{_listed(paths)} of the configuration {_differ(paths)} from {others}{_values(ones)}"
    if what == "presence":
        has = "has no" if ones[0].value == _ABSENT else "has"
        return f"{who}{has if len(cells) == 1 else has.replace('has', 'have')} {_listed(paths)}, unlike {others}"
    return f"{who}{PATHS[what]} of {_listed(paths)} differ from {others}{_values(ones)}"


def _differ(paths: Sequence[str]) -> str:
    return "differs" if len(paths) == 1 else "differ"


def _values(ones: Sequence[Difference]) -> str:
    """Return the two values, when all differences have the same."""
    pairs = {(one.value, one.usual) for one in ones}
    if len(pairs) > 1:
        return ""
    ((value, usual),) = pairs
    return f": {_short(value)}, not {_short(usual)}"


def _short(value: str) -> str:
    text = value or "none"
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH]}..."


def _layers(one: Difference) -> str:
    """Return which layers differ."""
    mine, usual = one.value.split(), one.usual.split()
    if len(mine) != len(usual):
        return f"it has {len(mine)} layers, not {len(usual)}, which differs"
    numbers = [str(number) for number, pair in enumerate(zip(mine, usual, strict=True), 1) if pair[0] != pair[1]]
    return f"layer{'' if len(numbers) == 1 else 's'} {_listed(numbers)} of {len(mine)} {_differ(numbers)}"


def _listed(words: Sequence[str], most: int = _SHOWN) -> str:
    if len(words) > most + 1:
        words = [*words[:most], f"{len(words) - most} more"]
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def details(differences: Sequence[Difference]) -> list[str]:
    """Return a line for each difference, with both values."""
    return [f"{one.cell}: {_detail(one)}" for one in differences]


def _detail(one: Difference) -> str:
    if one.what == LAYERS:
        return f"{_layers(one)} from {one.others} others"
    name = f"{one.what} of {one.path}" if one.path else one.what
    return f"{name}: {one.value or 'none'}, not {one.usual or 'none'}"
