"""The tests of a matrix that are programs: executable files of the workspace, and binaries of targets."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bkrules.analysis.cell_inputs import helper_inputs
from bkrules.analysis.context import Context
from bkrules.analysis.test_marks import Test
from bkrules.errors import did_you_mean
from bkrules.incremental.dependencies import current
from bkrules.model.action import Artifact, FileNode, HostFile, Output, ReachedOutput, Source
from bkrules.model.go_tests import LISTED, GoTests, pattern
from bkrules.model.label import Label
from bkrules.model.parameters import TestProgram
from bkrules.model.providers import GoTestInfo, WorkerInfo

_ELF = b"\x7fELF"
_LINE = re.compile(rb"#![ \t]*(\S+)(?:[ \t]+(.*?))?\s*")
_LONGEST_LINE = 256
_TOOLS = "/opt/bk/bin"
_PYTHON = ("python3", "python")
_MOST_SHARDS = 50
WORKER = "@worker@"
"""The place of a harness's worker in the words of a program."""
_OF_WORKER = re.compile(r"/worker=([^/]+)")
NOWHERE: frozenset[str] = frozenset()
_OF_GO = ("-test.", "--test.")
_HARMLESS = (
    "-test.v",
    "-test.timeout=",
    "-test.short",
    "-test.parallel=",
    "-test.count=",
    "-test.cpu=",
    "-test.failfast",
)
"""Flags of a test binary that choose no tests."""
_ROOTLESS = "1000:1000"
_OF_ROOTLESS = ("true", "unshare")
"""The commands by which the harness finds out whether rootless workers can run."""
MIRROR_FOLDER = "/run/bk/mirror"
"""The folder of a cell on BuildKit's harness in which the harness finds the mirror's storage."""


@dataclass(frozen=True)
class ProgramTest:
    """A test that is a program; `path` is its file, and `inputs` are its files and those that it reads.

    `axes` are those that the test has by itself. `harness` has the workers of BuildKit's harness by the ids of bk's, for a
    test that starts its daemons itself, and `lacking` those of its workers that do not have the test.
    """

    path: str
    test: Test
    program: TestProgram
    inputs: Mapping[str, Artifact]
    axes: tuple[tuple[str, str], ...] = ()
    harness: Mapping[str, str] | None = None
    lacking: frozenset[str] = frozenset()

    def is_on(self, worker: WorkerInfo) -> bool:
        """Return whether the harness has the test on a worker. A worker that it does not list without tools may have all."""
        theirs = (self.harness or {}).get(worker.id)
        return not isinstance(theirs, str) or theirs not in self.lacking  # `on` refuses what is no text

    def on(self, context: Context, worker: WorkerInfo) -> tuple[TestProgram, Mapping[str, Artifact]]:
        """Return the program and the inputs of the cell on a worker. Raises LoadError for one that the harness does not have."""
        if self.harness is None:
            return self.program, self.inputs
        theirs = self.harness.get(worker.id)
        if not isinstance(theirs, str):
            what = f"{self.path} is on BuildKit's harness, and its 'harness' has no worker for {worker.id!r}"
            raise context.error(
                "wrong-kind", what, "workers", did_you_mean(worker.id, self.harness, "workers of 'harness'")
            )
        own = {key: value.replace(WORKER, theirs) for key, value in self.program.environment.items()}
        if (snapshotter := theirs.partition("-snapshotter-")[2]) != "":
            own["BUILDKIT_INTEGRATION_SNAPSHOTTER"] = snapshotter
        inputs = self.inputs
        if worker.made is not None and worker.made.rootless:
            own["BUILDKIT_INTEGRATION_ROOTLESS_IDPAIR"] = _ROOTLESS
            inputs = {**inputs, **helper_inputs(context.machine, _OF_ROOTLESS)}
        arguments = tuple(word.replace(WORKER, theirs) for word in self.program.arguments)
        return replace(self.program, arguments=arguments, environment=own), inputs


def is_program(context: Context, label: Label) -> bool:
    """Return whether an entry of `tests` is a program, and not a Python file."""
    return context.workspace.target(label) is not None or not label.name.endswith(".py")


def read_programs(context: Context) -> list[ProgramTest]:
    """Return the programs in the attribute `tests`, one for each case or shard. Raises LoadError."""
    programs = [label for label in dict.fromkeys(context.attribute("tests")) if is_program(context, label)]
    suites = {label: info for label in programs if (info := context.find(label, GoTestInfo))}
    labels = [label for label in programs if label not in suites]
    data = {
        f"src/{source.path}": source
        for source in (context.source("data", label) for label in context.attribute("data"))
    }
    tools = {label.name.rpartition("/")[2] for label in context.attribute("tools")}
    names = [label.name for label in labels]
    for name in context.attribute("cases"):
        if name not in names:
            hint = did_you_mean(name, names, "programs in 'tests'")
            raise context.error(
                "unknown-test", f"'cases' names {name!r}, which is no program in 'tests'", "cases", hint
            )
    for name, is_used in (("args", programs), ("shard_count", names)):
        if context.attribute(name) not in ((), 1) and not is_used:
            hint = "leave it out; tests in Python take values from the axes of their matrix"
            what = f"{name!r} changes nothing: no program in 'tests' can have it"
            raise context.error("bad-attribute", what, name, hint)
    if context.attribute("shard_count") > _MOST_SHARDS:
        what = f"'shard_count' is {context.attribute('shard_count')}, but the most is {_MOST_SHARDS}"
        raise context.error("bad-attribute", what, "shard_count")
    of_go = _go_tests(context, suites, data) if suites else ()
    return [*(program for label in labels for program in _programs(context, label, data, tools)), *of_go]


def _go_tests(
    context: Context, suites: Mapping[Label, GoTestInfo], data: Mapping[str, Artifact]
) -> Iterator[ProgramTest]:
    """Yield the tests of Go binaries, which list them themselves. Raises LoadError."""
    answers = context.run([info.listing for info in suites.values()])
    for (label, info), outputs in zip(suites.items(), answers, strict=True):
        node = outputs[LISTED]
        assert isinstance(node, FileNode)
        names = GoTests.parse(json.loads(Path(node.path).read_bytes())).names
        for name, lacking in (dict.fromkeys(names, NOWHERE) if info.harness is None else by_worker(names)).items():
            yield replace(_go_test(context, label, info, name, data), lacking=lacking)


def by_worker(names: Sequence[str]) -> dict[str, frozenset[str]]:
    """Return the names of tests on a harness, each once, with WORKER in the place of the worker that some have.

    Each has the workers that the other names have, and it has not.
    """
    found: dict[str, set[str]] = {}
    for name in names:
        worker = _OF_WORKER.search(name)
        if worker is None:
            found[name] = set()
        else:
            found.setdefault(name[: worker.start(1)] + WORKER + name[worker.end(1) :], set()).add(worker[1])
    every = set().union(*found.values())
    return {name: frozenset(every - has) if has else NOWHERE for name, has in found.items()}


def _go_test(context: Context, label: Label, info: GoTestInfo, name: str, data: Mapping[str, Artifact]) -> ProgramTest:
    test, _, point = name.partition(f"/worker={WORKER}")
    environment = {
        **info.environment,
        "TEST_BINARY": label.path,
        "TEST_SIZE": context.attribute("size"),
        "TEST_TARGET": str(context.label),
        "TESTBRIDGE_TEST_ONLY": name,
        **({} if info.harness is None else {"BUILDKIT_REGISTRY_MIRROR_DIR": MIRROR_FOLDER}),
    }
    words = (f"{_TOOLS}/{info.name}", "-test.v", f"-test.run={pattern(name)}", *context.attribute("args"))
    return ProgramTest(
        str(label),
        Test(test, 1, callable=test.partition("/")[0]),
        TestProgram(words, environment, is_go=True, is_bare=info.harness is not None),
        {
            **data,
            **{f"src/{path}": file for path, file in info.data.items()},
            f"tools/{info.name}": _reached(context, info, name),
        },
        tuple((axis, choice) for axis, _, choice in (part.partition("=") for part in point.split("/")[1:])),
        info.harness,
    )


def _reached(context: Context, info: GoTestInfo, name: str) -> Artifact:
    """Return the binary of a test, with what the test reaches of it as its key when that can be told."""
    is_usual = all(word.startswith(_HARMLESS) or not word.startswith(_OF_GO) for word in context.attribute("args"))
    if not info.reached or not is_usual or context.attribute("isolation") == "worker":
        return info.binary
    assert isinstance(info.binary, Output)
    names = reached_names(name, on_harness=info.harness is not None)
    return ReachedOutput(info.binary.producer, info.binary.path, info.reached, names)


def reached_names(name: str, *, on_harness: bool) -> tuple[str, ...]:
    """Return the names under which the folder of a binary may have what a test reaches, the most exact first.

    A leaf of BuildKit's harness has a name that is more exact. A cell with all leaves of a function reaches what the function does.
    """
    top, _, below = name.partition("/")
    return (f"{top}+{below.partition('/')[0]}", f"{top}+", top) if on_harness and below else (top,)


def _programs(context: Context, label: Label, data: Mapping[str, Artifact], tools: set[str]) -> Iterator[ProgramTest]:
    inputs: dict[str, Artifact] = dict(data)
    if context.workspace.target(label) is None:
        source = context.source("tests", label)
        inputs[f"src/{source.path}"] = source
        path, words = source.path, _command(context, source, tools)
    else:
        path, words = label.path, [f"{_TOOLS}/{label.name.rpartition('/')[2]}"]
        binary = context.binary("tests", label, "a Python file, an executable file, or a target with a binary")
        inputs[f"tools/{label.name.rpartition('/')[2]}"] = binary.file
        if isinstance(binary.file, HostFile):
            inputs |= helper_inputs(context.machine, [binary.file.path])
    arguments = (*words, *context.attribute("args"))
    size = context.attribute("size")
    for name, own in _parts(context, label.name):
        environment = {"TEST_BINARY": path, "TEST_SIZE": size, "TEST_TARGET": str(context.label), **own}
        test = Test(name, 1, callable=label.name)
        yield ProgramTest(path, test, TestProgram(arguments, environment), inputs)


def _parts(context: Context, name: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the names of the cells of a program, each with the variables that say which part of it runs."""
    cases: Sequence[object] = context.attribute("cases").get(name, ())
    if not isinstance(cases, list | tuple) or not all(isinstance(case, str) and case for case in cases):
        raise context.error("bad-attribute", f"'cases' must map {name!r} to a list of names", "cases")
    if len(set(cases)) < len(cases):
        raise context.error("duplicate-name", f"'cases' names a case of {name!r} twice", "cases")
    count: int = context.attribute("shard_count")
    for case in map(str, cases):
        yield f"{name}[{case}]", {"TESTBRIDGE_TEST_ONLY": case}
    if not cases and count > 1:
        for index in range(count):
            yield (
                f"{name}[shard_{index + 1}_of_{count}]",
                {"TEST_SHARD_INDEX": str(index), "TEST_TOTAL_SHARDS": str(count)},
            )
    elif not cases:
        yield name, {}


def _command(context: Context, source: Source, tools: set[str]) -> list[str]:
    """Return the first words of the command line of a file. A `#!` line names one of `tools`, since a cell has no other."""
    path = current().note(context.workspace.place(source.path))
    with open(path, "rb") as file:
        first = file.readline(_LONGEST_LINE)
    if first.startswith(_ELF):
        return [f"/src/{source.path}"]
    line = _LINE.fullmatch(first)
    if line is None:
        hint = "let it begin with a line such as #!/bin/sh, or name a target whose output is a binary"
        what = f"{source.path} is neither Python nor a program: it begins with {first[:16].decode(errors='replace')!r}"
        raise context.error("not-executable", what, "tests", hint)
    try:
        words = [line[1].decode(), *shlex.split((line[2] or b"").decode())]
    except ValueError as error:
        raise context.error(
            "not-executable", f"{source.path}: its first line cannot be read: {error}", "tests"
        ) from error
    if words[0].endswith("/env"):
        words = [word for word in words[1:] if word != "-S"]
    name = words[0].rpartition("/")[2] if words else ""
    if name in _PYTHON:
        return ["/usr/bin/python3", *words[1:], f"/src/{source.path}"]
    if name not in tools:
        what = f"{source.path} is run by {name!r}, which is not among 'tools'"
        hint = f"add a binary of that name, such as  host_binary(name = {name!r}, binary = {'/bin/' + name!r})"
        raise context.error("missing-tool", what, "tests", hint)
    return [f"{_TOOLS}/{name}", *words[1:], f"/src/{source.path}"]
