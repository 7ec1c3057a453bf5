"""A worker, a rule with an action, an axis key, a command, a reporter, a wrapper around each test, and a failure classifier."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bkrules.plugin import Backend, Daemons, Mirror, ProgramResult, Register, RunningCell, Worker, buildkitd, hookimpl


@dataclass(frozen=True)
class EveryWorker(Worker):
    """buildkitd on the native snapshotter."""

    name = "every"

    def tools(self) -> tuple[str, ...]:
        return ("buildkitd", "runc")

    def configuration(self, mirror: Mirror) -> Mapping[str, Mapping[str, Any]]:
        return {buildkitd.CONFIGURATION: buildkitd.configuration(mirror)}

    @contextmanager
    def start(self, daemons: Daemons) -> Iterator[Backend]:
        flags = [*buildkitd.OCI_FLAGS, "--oci-worker-snapshotter=native"]
        yield buildkitd.backend(buildkitd.start(daemons, flags), "native")


@hookimpl
def bk_register_workers(register: Register) -> None:
    register(EveryWorker)


@hookimpl
def bk_register_rules(register: Callable[..., None]) -> None:
    from bkrules.rules.define import ActionRun, Attr, Context, FilesInfo, Rule  # a cell has no use for them

    def count(run: ActionRun) -> None:
        words = sum(len(path.read_text().split()) for path in run.inputs.values())
        (run.folder / "words.txt").write_text(f"{words}\n")

    def analyze(context: Context) -> tuple[object, ...]:
        sources = {label.path: context.source("srcs", label) for label in context.attribute("srcs")}
        action = context.declare("CountWords", [], sources, ["words.txt"])
        return (FilesInfo({"words.txt": context.output(action, "words.txt")}),)

    attributes = {"srcs": Attr("labels", "Files whose words are counted.", required=True)}
    register(Rule("word_count", "Counts words.", attributes, analyze), {"CountWords": count})


def parallel(value: object) -> dict[str, Any]:
    """What the axis key `parallel` stands for: so many build steps at once."""
    if not isinstance(value, int):
        raise ValueError(f"it must be a number, but was {value!r}")
    return {"buildkitd.toml": {"worker": {"oci": {"max-parallelism": value}}}}


@hookimpl
def bk_register_axis_keys(register: Callable[..., None]) -> None:
    register("parallel", parallel)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", required=True)


def hello(arguments: argparse.Namespace) -> int:
    print(f"hello {arguments.name}")
    return 7


@hookimpl
def bk_register_commands(register: Callable[..., None]) -> None:
    register("hello", "greet somebody", hello, configure)


def summary(document: dict[str, Any]) -> str:
    return "".join(f"{cell['name']} {cell['status']}\n" for cell in document["cells"])


@hookimpl
def bk_register_reporters(register: Callable[..., None]) -> None:
    register("everything.txt", summary)


@hookimpl(wrapper=True)
def bk_run_program(cell: RunningCell) -> Generator[None, ProgramResult, ProgramResult]:
    result = yield
    (cell.daemons.logs / "wrapped.txt").write_text(f"{cell.name} {result.status}\n")
    return result


@hookimpl
def bk_classify_failure(result: ProgramResult) -> str | None:
    return "infrastructure" if "the network is down" in result.reason else None
