"""The context of a rule's function: its target's attributes, its dependencies' providers, and a way to declare actions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from bkrules.analysis.host_inputs import Machine
from bkrules.analysis.plugin_files import code_files
from bkrules.errors import BkError, LoadError
from bkrules.loading.workspace import Workspace
from bkrules.model.action import Action, Artifact, Cell, HostFile, Inputs, Node, Output, Source
from bkrules.model.label import Label
from bkrules.model.providers import BinaryInfo
from bkrules.model.resources import EXCLUSIVE, LIMITS, MEMORY, UNASKED, Limits, Request, request_of
from bkrules.model.rule import Target
from bkrules.model.wire import Wire, text_of
from bkrules.plugin.features import FEATURES
from bkrules.plugin.installed import Plugins

DEFAULT_MEMORY = dict(UNASKED.resources)[MEMORY]
Provider = TypeVar("Provider")


Run = Callable[[Sequence[Action]], Sequence[Mapping[str, Node]]]
"""Runs actions, after those on which they depend, and returns the outputs of each. Raises BkError."""


class RunEarly(Protocol):
    """Runs actions during the analysis; `known` are the actions of targets that are analysed."""

    def __call__(self, actions: Sequence[Action], known: Mapping[str, Action]) -> Sequence[Mapping[str, Node]]:
        """Return the outputs of each action. Raises BkError."""


Code = Callable[[str], Mapping[str, str]]
Pairs = tuple[tuple[str, str], ...]
Unsupported = Callable[[frozenset[str]], frozenset[str]]


def missing(features: frozenset[str]) -> frozenset[str]:
    """Return the features that a worker with these features lacks."""
    return FEATURES - features


def run_nothing(_: Sequence[Action]) -> Sequence[Mapping[str, Node]]:
    """Raise an error instead of running an action: for an analysis of targets that need none."""
    raise AssertionError("this analysis needs an early action, but cannot run one")


def pairs_of(values: Mapping[str, str] | Pairs | None) -> Pairs:
    """Return names and values as sorted pairs. A tuple is sorted already."""
    return values if isinstance(values, tuple) else tuple(sorted((values or {}).items()))


def code_of(module: str) -> Mapping[str, str]:
    """Return the files of a plugin's module and of all that it imports, by their paths below the import path."""
    return code_files([module])


class Context:
    """The analysis of one target. `run` is for early actions, whose results decide which other actions exist.

    `keep_going`: what does not depend on a broken target is built.
    """

    def __init__(
        self,
        target: Target,
        workspace: Workspace,
        plugins: Plugins,
        machine: Callable[[], Machine],
        providers: Mapping[Label, tuple[object, ...]],
        unsupported: Unsupported = missing,
        run: Run = run_nothing,
        *,
        keep_going: bool = False,
        code: Code = code_of,
    ) -> None:
        self.target = target
        self.label = target.label
        self.workspace = workspace
        self.plugins = plugins
        self.actions: list[Action] = []
        self._machine = machine
        self._providers = providers
        self.unsupported = unsupported
        self.run = run
        self.keep_going = keep_going
        self._code = code
        self._title, self._place = str(target.label), str(target.location)
        self._requests: dict[tuple[float, str, bool], Request] = {}

    @property
    def machine(self) -> Machine:
        """This machine, read when the first rule needs it."""
        return self._machine()

    def attribute(self, name: str) -> Any:
        """Return the value of an attribute."""
        return self.target.attributes[name]

    def error(self, reason: str, message: str, attribute: str = "", hint: str = "") -> LoadError:
        """Return an error at this target, or at one of its attributes."""
        where = self.target.location.of(attribute) if attribute else str(self.target.location)
        return LoadError(reason, f"{self.label}: {message}", where=where, hint=hint)

    def provider(self, attribute: str, label: Label, kind: type[Provider], what: str) -> Provider:
        """Return the provider `kind` of the target `label`. Raises LoadError, with the description `what`, when it has
        no such provider.
        """
        if (found := self.find(label, kind)) is not None:
            return found
        other = self.workspace.target(label)
        is_now = f"a {other.rule.name}" if other else "a source file"
        raise self.error("wrong-kind", f"{attribute!r} needs {what}, but {label} is {is_now}", attribute)

    def binary(self, attribute: str, label: Label, what: str = "a binary") -> BinaryInfo:
        """Return the binary of the target `label`, which runs on this machine. Raises LoadError for one of another platform."""
        found = self.provider(attribute, label, BinaryInfo, what)
        if found.platform:
            said = f"{attribute!r} needs {what} of this machine, but {label} is built for {found.platform}"
            raise self.error("wrong-platform", said, attribute, "name a target without 'goos' and 'goarch'")
        return found

    def find(self, label: Label, kind: type[Provider]) -> Provider | None:
        """Return the provider `kind` of the target `label`, or None."""
        found = self._providers.get(label) or self._providers.get(self.workspace.actual(label), ())
        return next((provider for provider in found if isinstance(provider, kind)), None)

    def source(self, attribute: str, label: Label) -> Source:
        """Return a source file. Raises LoadError when it does not exist."""
        if not self.workspace.is_file(label):
            raise self.error("missing-file", f"no such file: {label.path}", attribute, self.workspace.unknown(label))
        return Source(label.path)

    def declare(
        self,
        mnemonic: str,
        arguments: Sequence[str] | Wire,
        inputs: Mapping[str, Artifact] | Inputs,
        outputs: Sequence[str],
        *,
        environment: Mapping[str, str] | Pairs | None = None,
        platform: Mapping[str, str] | Pairs | None = None,
        timeout: int = 0,
        cell: Cell | None = None,
        exclusive: bool = False,
        memory: float = DEFAULT_MEMORY,
        worker: str = "",
        folders: Sequence[str] = (),
        optional: Sequence[str] = (),
        name: str = "",
        limits: Limits = LIMITS,
        made_in: str = "",
    ) -> Action:
        """Declare an action of this target.

        `arguments` are the words of a command, or the parameters of a mnemonic that bk itself runs. `folders` are the
        outputs that are folders, `optional` those of them that need not exist. `memory` is the expected use in MiB
        unless a tag sets it; an `exclusive` action runs alone; `worker` names the one that it shares. `name` distinguishes
        several actions of one mnemonic. `limits` are enforced. `made_in` is the folder of the input root in which a command
        makes its outputs. Tuples of pairs are sorted already, and shared by actions.
        """
        if mnemonic in self.plugins.runners:
            module = self.plugins.runners[mnemonic][1].module
            inputs = {**dict(inputs), **{f"plugin/{name}": HostFile(path) for name, path in self._code(module).items()}}
        suffix = cell.name if cell else f"{mnemonic} {name}".rstrip()
        action = Action(
            id=f"{self._title} {suffix}",
            label=self.label,
            mnemonic=mnemonic,
            arguments=(text_of(arguments),) if isinstance(arguments, Wire) else tuple(arguments),
            inputs=inputs if isinstance(inputs, Inputs) else tuple(sorted(inputs.items())),
            outputs=tuple(outputs),
            environment=pairs_of(environment),
            platform=pairs_of(platform),
            timeout=timeout,
            cell=cell,
            request=self._request(memory, worker, exclusive=exclusive),
            folders=tuple(folders),
            optional=tuple(optional),
            limits=limits,
            made_in=made_in,
            where=self._place,
        )
        self.actions.append(action)
        return action

    def _request(self, memory: float, worker: str, *, exclusive: bool) -> Request:
        terms = memory, worker, exclusive
        if terms not in self._requests:
            self._requests[terms] = replace(self._new_request(memory, exclusive=exclusive), worker=worker)
        return self._requests[terms]

    def _new_request(self, memory: float, *, exclusive: bool) -> Request:
        tags = [*self.target.attributes["tags"], *([EXCLUSIVE] if exclusive else [])]
        if not tags and memory == DEFAULT_MEMORY:
            return UNASKED
        try:
            return request_of(tags, memory)
        except ValueError as error:
            raise self.error("bad-tag", str(error), "tags") from error

    def broken(self, fault: BkError, name: str) -> Output:
        """Return the output of an action that fails with this error: actions that need it do not run, and the rest of
        the build does.

        Raises the error instead, unless the build keeps going.
        """
        if not self.keep_going:
            raise fault
        action = replace(self.declare("UseWorker", [], {}, ["usable"], name=name), fault=fault)
        self.actions[-1] = action
        return self.output(action, "usable")

    def output(self, action: Action, path: str) -> Output:
        """Return one of the outputs of this target's actions."""
        assert path in action.outputs, f"{action.id} has no output {path}"
        return Output(action.id, path)
