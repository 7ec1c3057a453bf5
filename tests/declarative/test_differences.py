"""The differences between results of one build, and how they are told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bkrules.declarative.differences import Agreement, compare, details, headlines
from bkrules.declarative.seen import Entry, Seen

DIRECTORY = Entry("directory", "0755", "0:0")
SEEN = Seen(
    rootfs=dict.fromkeys(("/", "/dev", "/proc", "/sys"), DIRECTORY) | {"/a": Entry("file", "0644", "0:0", 1, "aa")},
    config={"architecture": "amd64", "config": {"Env": ["PATH=/bin"], "User": "1000"}},
    layers=("sha256:1", "sha256:2", "sha256:3"),
    digest="sha256:d",
)
CELLS = ("containerd", "oci", "oci+stargz", "dockerd", "rootless")


def with_entries(seen: Seen, **changes: Any) -> Seen:
    """The result with other entries; None removes one."""
    entries = {**seen.rootfs, **{f"/{name}": entry for name, entry in changes.items()}}
    return replace(seen, rootfs={path: entry for path, entry in entries.items() if entry})


def compared(*expected: dict[str, str], usual: Seen = SEEN, **others: Seen) -> Agreement:
    """The agreement of five cells that all saw the same but those that are given."""
    results = {cell: others.get(cell, usual) for cell in CELLS}
    return compare(results, {cell: {"worker": cell} for cell in CELLS}, expected)


def told(*expected: dict[str, str], **others: Seen) -> list[str]:
    return headlines(compared(*expected, **others).unexpected)


LOW = replace(DIRECTORY, mode="0555")
MODES = replace(with_entries(SEEN, proc=LOW, sys=LOW), layers=("sha256:1", "sha256:x", "sha256:y"), digest="sha256:e")


def test_results_that_are_the_same_agree() -> None:
    assert compared() == Agreement()


def test_the_few_differ_from_the_most_and_what_follows_is_not_told() -> None:
    assert told(rootless=MODES) == ["rootless: modes of /proc and /sys differ from 4 others: 0555, not 0755"]
    assert details(compared(rootless=MODES).consequences) == [
        "rootless: layers 2 and 3 of 3 differ from 4 others",
        "rootless: digest: sha256:e, not sha256:d",
    ]


def test_each_kind_of_difference_has_its_words() -> None:
    other = replace(DIRECTORY, owner="1:1")
    assert told(oci=with_entries(SEEN, dev=other), dockerd=with_entries(SEEN, dev=other)) == [
        "oci and dockerd: owners of /dev differ from 3 others: 1:1, not 0:0"
    ]
    file = SEEN.rootfs["/a"]
    assert told(oci=with_entries(SEEN, a=None)) == ["oci: has no /a, unlike 4 others"]
    assert told(oci=with_entries(SEEN, b=file), dockerd=with_entries(SEEN, b=file)) == [
        "oci and dockerd: have /b, unlike 3 others"
    ]
    assert told(oci=with_entries(SEEN, a=replace(file, sha256="bb", size=2))) == [
        "oci: contents of /a differ from 4 others: bb, not aa"
    ]
    assert told(oci=with_entries(SEEN, a=replace(file, xattrs={"user.a": "1"}))) == [
        'oci: extended attributes of /a differ from 4 others: {"user.a": "1"}, not {}'
    ]
    assert told(oci=with_entries(SEEN, a=replace(file, link="/b"))) == [
        "oci: link targets of /a differ from 4 others: /b, not none"
    ]
    assert told(oci=with_entries(SEEN, a=Entry("symlink", "0644", "0:0", sha256="aa"))) == [
        "oci: types of /a differ from 4 others: symlink, not file"
    ]
    config = {**SEEN.config, "config": {"Env": ["PATH=/bin"], "Labels": {"a.b": "1"}}}
    assert told(oci=replace(SEEN, config=config)) == [
        "oci: config.Labels.a.b and config.User of the configuration differ from 4 others"
    ]
    assert told(oci=replace(SEEN, layers=("sha256:1", "sha256:x", "sha256:3"), digest="sha256:e")) == [
        "oci: layer 2 of 3 differs from 4 others, although each path is equal"
    ]
    assert told(oci=replace(SEEN, digest="sha256:e")) == [
        "oci: the digest differs from 4 others, although each layer is equal"
    ]
    many = {f"f{number}": file for number in range(9)}
    assert told(oci=with_entries(SEEN, **many)) == ["oci: has /f0, /f1, /f2 and 6 more, unlike 4 others"]


def test_a_build_that_fails_on_one_worker_is_a_difference_and_nothing_else_of_it_is() -> None:
    assert told(oci=Seen(failure="error: failed to solve: no")) == [
        "oci: the build failed: error: failed to solve: no, unlike 4 others"
    ]


def test_what_a_worker_cannot_show_is_no_difference_and_is_listed() -> None:
    flat = replace(SEEN, config={}, layers=(), digest="", unknown="unknown, since it cannot export an OCI image")
    assert compared(dockerd=flat) == Agreement(unknown={"dockerd": flat.unknown})


def test_of_two_halves_the_first_is_usual() -> None:
    results = {"one": SEEN, "two": MODES}
    found = compare(results, {"one": {"worker": "one"}, "two": {"worker": "two"}}, ())
    assert headlines(found.unexpected) == ["two: modes of /proc and /sys differ from 1 other: 0555, not 0755"]


def test_expected_differences_are_patterns_and_those_that_are_gone_are_told() -> None:
    entry = {"worker": "root*", "what": "mode", "path": "/[ps]*"}
    found = compared(entry, rootless=MODES)
    assert (found.unexpected, found.unused) == ((), ())
    assert [one.path for one in found.expected] == ["/proc", "/sys"]
    assert compared(entry).unused == (entry,)
    assert told({**entry, "path": "/sys"}, rootless=MODES) == [
        "rootless: modes of /proc differ from 4 others: 0555, not 0755"
    ]
    assert told({**entry, "worker": "oci"}, rootless=MODES) != []


def test_an_agreement_is_read_as_it_was_written() -> None:
    found = compared({"what": "owner"}, rootless=MODES, oci=replace(SEEN, digest="sha256:e"))
    assert Agreement.parse(found.to()) == found
