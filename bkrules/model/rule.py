"""Rules and targets: a schema, its fields, and one use of it.

A rule is a set of typed attributes and a pure function from a `Context` to providers; it declares actions and never runs
anything. One use of a rule in a WORKSPACE.py or BUILD.py is a target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bkrules.errors import LoadError, did_you_mean
from bkrules.model.label import Label, LabelError, parse_label
from bkrules.model.resources import ONLY_IN_BAZEL, SIZES, TIMEOUTS, meant_tag

if TYPE_CHECKING:
    from bkrules.analysis.context import Context
    from bkrules.plugin.installed import Plugins


@dataclass(frozen=True, slots=True)
class Location:
    """Where a target was written: the file relative to the workspace, the line of the call and of each attribute."""

    file: str
    line: int
    attributes: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"

    def of(self, attribute: str) -> str:
        """Return the place of an attribute, for a message."""
        return f"{self.file}:{self.attributes.get(attribute, self.line)}, attribute {attribute!r}"


@dataclass(frozen=True, slots=True)
class Attr:
    """A field of a rule. `kind` is one of the keys of `KINDS`; `doc` is shown in the reference.

    `missing` is a hint for a label that names nothing; `{target}` in it stands for the target with the attribute.
    `text` is a hint for a string in place of a list, when a list with that string would be wrong too.
    """

    kind: str
    doc: str
    required: bool = False
    default: Any = None
    missing: str = ""
    text: str = ""


Expand = Callable[[Label, Mapping[str, Any], Location], "Iterable[tuple[Rule, Mapping[str, Any]]]"]


@dataclass(frozen=True, slots=True)
class Rule:
    """The meaning of a name such as `image` in a BUILD.py. With `open_ended`, unknown attributes are kept for `analyze`.

    `implicit` names targets that every target of the rule depends on without an attribute; those that do not exist are
    left out. `expand` makes one use of the rule several targets of other rules: it is called with the label and all given
    attributes, and yields rules and attributes. It raises LoadError. A target that `is_test` has cells, and `bk test` runs them.
    """

    name: str
    doc: str
    attributes: Mapping[str, Attr]
    analyze: Callable[[Context], tuple[object, ...]]
    open_ended: bool = False
    expand: Expand | None = None
    implicit: Callable[[Target, Plugins], list[Label]] = lambda _target, _plugins: []
    is_test: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """One use of a rule. Labels among the attributes are `Label`s; absent attributes have their defaults."""

    label: Label
    rule: Rule
    attributes: Mapping[str, Any]
    extra: Mapping[str, Any]
    location: Location

    def labels(self) -> list[tuple[str, Label]]:
        """Return every label among the attributes, with the attribute that names it, in order."""
        found: list[tuple[str, Label]] = []
        for name, attribute in self.rule.attributes.items():
            value = self.attributes[name]
            if isinstance(value, Label):
                found.append((name, value))
            elif attribute.kind == "labels":
                found += [(name, label) for label in value]
            elif attribute.kind == "label_dict":
                found += [(name, label) for label in value.values()]
        return found


COMMON = {
    "name": Attr("string", "The target's name, unique in its package.", required=True),
    "tags": Attr(
        "strings",
        "Words to query by. 'manual': patterns such as //... and :all do not match the target in `bk build` and "
        "`bk test`; its name does. 'exclusive': the target's actions run alone. 'cpu:N' and 'resources:NAME:N': the "
        "resources of each of its actions, such as 'resources:memory:2000' (MiB) or 'resources:gpu:1'; see "
        "--local_resources. A tag with which only Bazel does something, such as 'no-cache', is an error.",
        default=(),
    ),
}


def check_attributes(
    rule: Rule, label: Label, given: Mapping[str, Any], where: Location
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the declared and the extra attributes of a target. Raises LoadError for attributes that the schema does
    not allow.
    """
    schema = {**COMMON, **rule.attributes}
    extra = {name: value for name, value in given.items() if name not in schema}
    if extra and not rule.open_ended:
        name = sorted(extra)[0]
        raise LoadError(
            "unknown-attribute",
            f"{label}: {rule.name} has no attribute {name!r}",
            where=where.of(name),
            hint=did_you_mean(name, schema, "attributes"),
        )
    values: dict[str, Any] = {}
    for name, attribute in schema.items():
        if name not in given:
            if attribute.required:
                raise LoadError(
                    "missing-attribute",
                    f"{label}: {rule.name} needs the attribute {name!r}: {attribute.doc}",
                    where=str(where),
                )
            values[name] = default_value(attribute, label.package)
            continue
        try:
            values[name] = KINDS[attribute.kind](given[name], label.package)
        except (TypeError, LabelError) as error:
            is_text = attribute.text and isinstance(given[name], str)
            hint = attribute.text if is_text else "\n".join(getattr(error, "__notes__", ()))
            raise LoadError("bad-attribute", f"{label}: {name!r} {error}", where=where.of(name), hint=hint) from error
    _check_tags(label, values["tags"], where)
    return values, extra


def _check_tags(label: Label, tags: Iterable[str], where: Location) -> None:
    """Raise LoadError for a tag that bk would ignore although its author expects something of it: one of Bazel's, or nearly
    one of bk's.
    """
    for tag in tags:
        if instead := ONLY_IN_BAZEL.get(tag.lower().replace("_", "-")):
            message = f"{label} has the tag {tag!r}, which bk does not act on as Bazel does"
            hint = f"{instead}\na tag of your own needs another name"
            raise LoadError("unknown-tag", message, where=where.of("tags"), hint=hint)
        if meant := meant_tag(tag):
            message = f"{label} has the unknown tag {tag!r}"
            hint = f"did you mean {meant!r}? A tag of your own needs a name that differs in more than one letter"
            raise LoadError("unknown-tag", message, where=where.of("tags"), hint=hint)


def default_value(attribute: Attr, package: str) -> Any:
    """Return the default of an attribute for a target in `package`."""
    if attribute.kind == "label" and attribute.default is not None:
        return parse_label(attribute.default, package)
    return attribute.default


def _expect(kind: type, what: str) -> Callable[[Any, str], Any]:
    def check(value: Any, _package: str) -> Any:
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise TypeError(f"must be {what}, but was {value!r}")
        return value

    return check


def _strings(value: Any, _package: str) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        error = TypeError(f"must be a list of strings, but was {value!r}")
        if isinstance(value, str):
            error.add_note(f"write [{value!r}]")
        raise error
    wrong = [item for item in value if not isinstance(item, str)]
    if wrong:
        error = TypeError(f"must be a list of strings, but was {value!r}")
        error.add_note(f"no string: {wrong[0]!r}")
        raise error
    return tuple(value)


def _label(value: Any, package: str) -> Label:
    if not isinstance(value, str):
        raise TypeError(f"must be a label, but was {value!r}")
    try:
        return parse_label(value, package)
    except LabelError as error:
        raise LabelError(f"must be a label: {error}") from error


def _labels(value: Any, package: str) -> tuple[Label, ...]:
    return tuple(_label(item, package) for item in _strings(value, package))


def _string_dict(value: Any, package: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise TypeError(f"must be a dictionary with strings as keys, but was {value!r}")
    return dict(value)


def _dict_or_label(value: Any, package: str) -> dict[str, Any] | Label:
    if not isinstance(value, str | dict):
        raise TypeError(f"must be a dictionary, or the label of a JSON file, but was {value!r}")
    return _label(value, package) if isinstance(value, str) else _string_dict(value, package)


def _label_dict(value: Any, package: str) -> dict[str, Label]:
    return {key: _label(item, package) for key, item in _string_dict(value, package).items()}


def _dicts(value: Any, _package: str) -> tuple[dict[str, str], ...]:
    if not isinstance(value, list | tuple) or not all(
        isinstance(one, dict) and all(isinstance(word, str) for pair in one.items() for word in pair) for one in value
    ):
        raise TypeError(f"must be a list of dictionaries of strings, but was {value!r}")
    return tuple(dict(one) for one in value)


def _count(value: Any, package: str) -> int:
    try:
        number: int = _expect(int, "a whole number")(value, package)
    except TypeError as error:
        if size := isinstance(value, str) and TIMEOUTS.get(value):
            error.add_note(f"a size has that timeout of Bazel:  size = {size!r}  is {SIZES[size].timeout} seconds")
        raise
    if number <= 0:
        raise TypeError(f"must be a positive number, but was {number}")
    return number


KINDS: Mapping[str, Callable[[Any, str], Any]] = {
    "string": _expect(str, "a string"),
    "bool": _expect(bool, "True or False"),
    "count": _count,
    "strings": _strings,
    "label": _label,
    "labels": _labels,
    "dict": _string_dict,
    "dict_or_label": _dict_or_label,
    "dicts": _dicts,
    "label_dict": _label_dict,
}
