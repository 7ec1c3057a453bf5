"""The executor: gets an action's result from the cache, or runs the action and stores its outputs."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from bkrules.analysis.host_inputs import find
from bkrules.cache.action_cache import ActionCache, ActionResult
from bkrules.cache.file_digests import FileDigests
from bkrules.cache.results import files_of
from bkrules.errors import ActionFailed, BkError, Interrupted, RemoteFailed, of_machine
from bkrules.execution import cell_answers
from bkrules.execution.context import RunContext
from bkrules.execution.job_slot import JobSlot, Unscheduled
from bkrules.execution.layout import RESULT, WHOLE
from bkrules.execution.made_outputs import store
from bkrules.execution.profile import NoProfile
from bkrules.execution.result import CONTRADICTIONS, Outcome, Result, failed
from bkrules.incremental.dependencies import Dependencies, current
from bkrules.model import digest
from bkrules.model.action import (
    Action,
    Artifact,
    DirectoryNode,
    FileNode,
    HostFile,
    HostFolder,
    Inputs,
    Key,
    Node,
    Output,
    ReachedOutput,
    SharedInputs,
    Source,
    Text,
    key_of,
)
from bkrules.model.shared_nodes import SharedNodes
from bkrules.model.status import GOOD, FailureClass, Status
from bkrules.system.locks import tried_name
from bkrules.system.trees import TooManyFiles, list_files

if TYPE_CHECKING:
    from bkrules.execution.elsewhere import Elsewhere

NO_PROFILE = NoProfile()
KEYS = "keys"
"""The file of the locks of all keys, in the disk cache's folder of locks."""
_DAMAGED = "the cache's copy of what it made was damaged"
_BETWEEN_TRIES = 0.05
"""The seconds between two tries to hold the lock of a key."""


class Executor:
    """Resolves inputs, asks the action cache, and runs actions that miss. `results` are the results of this build.

    `whole` decides for which actions bk needs the bytes, and not only the digests; `say` receives a message for each
    hit that has to run all the same. `read` decides which results of the disk cache are read again before they are
    hits. An action that `may_be_cached` excludes always runs; its result is stored like any other. `place` returns the
    absolute path of a source. `elsewhere` runs the actions that it takes.
    """

    def __init__(
        self,
        place: Callable[[str], str],
        actions: ActionCache,
        digests: FileDigests,
        context: Callable[[], RunContext],
        *,
        whole: Callable[[Action], bool] = lambda _action: True,
        read: Callable[[Action], bool] | None = None,
        may_be_cached: Callable[[Action], bool] = lambda _action: True,
        say: Callable[[str], None] = print,
        profile: NoProfile = NO_PROFILE,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self._place = place
        self._actions = actions
        self._digests = digests
        self._context = context
        self._whole, self._may_be_cached, self._say, self._profile = whole, may_be_cached, say, profile
        self._read = read or whole
        self._elsewhere = elsewhere
        self.results: dict[str, Result] = {}
        self._folders: dict[HostFolder, DirectoryNode] = {}
        self._shared_nodes: dict[
            tuple[SharedInputs, Dependencies, str | None], tuple[tuple[Result, ...], SharedNodes]
        ] = {}
        self._last_own: dict[str, Node] = {}
        self._lock = threading.Lock()
        self._lost: dict[str, Result] = {}
        self.stopped = threading.Event()

    def key(self, action: Action) -> Key:
        """Return the key of an action whose dependencies have results. Raises ActionFailed or MachineLacks for a missing input."""
        inputs = action.inputs
        if not isinstance(inputs, Inputs):
            return key_of(action, self._resolve(action))
        return self._shared(action, inputs.shared).key(action, self._own(action, inputs))

    def _own(self, action: Action, inputs: Inputs) -> dict[str, Node]:
        """Return the resolved inputs of an action that others lack: one object as long as they are equal, as at the points of
        a test.
        """
        nodes = {path: self._node(action, item) for path, item in inputs.own}
        known = self._last_own
        if nodes == known:
            return known
        self._last_own = nodes
        return nodes

    def _shared(self, action: Action, shared: SharedInputs) -> SharedNodes:
        """Return resolved inputs that many actions share. Each package depends on their files, and has to note them."""
        made = tuple(self.results[name] for name in shared.dependencies)
        place = shared, current(), current().package
        known = self._shared_nodes.get(place)
        if known is None or any(now is not before for now, before in zip(made, known[0], strict=True)):
            nodes = {path: self._node(action, item) for path, item in shared.pairs}
            known = self._shared_nodes[place] = made, SharedNodes(nodes)
        return known[1]

    def inputs(self, action: Action) -> dict[str, Node]:
        """Return the inputs of an action whose dependencies have results. Their bytes may not be on the disk. Raises BkError."""
        return self._resolve(action)

    def look_up(self, action: Action, key: Key | None = None) -> Result | None:
        """Return the result from the disk cache, a failure or a skip that needs no run, or None. `key` is known already."""
        if action.cell is not None and action.cell.skip:
            return Result(action, Status.SKIPPED, reason=action.cell.skip, failure=FailureClass.SKIP)
        if action.fault is not None:
            return failed(action, action.fault)
        with current().of_package(action.label.package):
            try:
                return self._cached(action, key or self.key(action))
            except BkError as error:
                return failed(action, error)

    def ask(self, action: Action) -> Result | None:
        """Return the result from the remote cache, or None. Raises RemoteFailed when that cache is required and fails."""
        if not self._may_be_cached(action):
            return None
        key = self.key(action)
        whole, declared = self._whole(action), action.declared
        stored = self._actions.ask(key.digest, whole=whole, declared=declared, above=action.above)
        if stored is None:
            return None
        answer = _answer_of(action, stored)
        if answer is not None and self._actions.fetch([answer]):
            return None
        try:
            return replace(self._hit(action, key, stored), remote=True)
        except ValueError as error:
            self._actions.lied(key.digest, error)
            return None

    def run(self, action: Action, slot: JobSlot | None = None) -> Result:
        """Return the result of a run, or from the cache when another process of bk has just stored it.

        While that process works on it, other actions may have the slot.
        """
        slot = slot or Unscheduled(action.id)
        with self._profile.action(action), current().of_package(action.label.package):
            return self._run_in_slot(action, slot)

    def _run_in_slot(self, action: Action, slot: JobSlot) -> Result:
        try:
            engine = self._elsewhere if self._elsewhere and self._elsewhere.takes(action) else None
            with self._profile.span("gather inputs", "cache"):
                if engine is None:
                    self._gather(action, slot)
                else:
                    self._mend(action, slot)
            inputs = self._resolve(action) if engine is None else {}
            key = self.key(action) if engine else key_of(action, inputs)
            with self._locked(key.digest.hash, slot):
                result = self._cached(action, key)
                if result is not None:
                    return result
                if slot.is_released:
                    with self._profile.span("wait for a job slot", "wait"):
                        slot.reacquire()
                if engine is None:
                    return self._run(action, key, inputs)
                result = self._run_elsewhere(engine, action, key) if self._is_certain(action) else None
                return result or self._run_after_all(action, slot)
        except BkError as error:
            return failed(action, error)

    def _run_elsewhere(self, engine: Elsewhere, action: Action, key: Key) -> Result | None:
        """Return the result of an engine. Return None for an engine that fails, when this machine may take its place."""
        from bkrules.execution.engine_runs import EngineRuns

        began = time.monotonic()
        runs = EngineRuns(engine, self._actions, self._context, self._whole, self._profile)

        def again() -> dict[str, Node]:
            if key_of(action, self.stage(action)) != key:
                raise RemoteFailed("engine", f"{action.label}: an input of it was made once more, and has changed")
            return self._portable(action)[1]

        try:
            return runs.run(action, key, self._portable(action), again, uncached=not self._may_be_cached(action))
        except BkError as error:
            if isinstance(error, RemoteFailed):
                if engine.fallback:
                    self._say(f"  {action.mnemonic} {action.title} runs here: {error.message}")
                    return None
                engine.failed = True
            return replace(failed(action, error), key=key, seconds=time.monotonic() - began)

    def _run_after_all(self, action: Action, slot: JobSlot) -> Result:
        """Run here what an engine has failed to run."""
        slot.release()
        slot.reacquire(here=True)
        inputs = self.stage(action)
        return self._run(action, key_of(action, inputs), inputs)

    @contextmanager
    def _locked(self, key: str, slot: JobSlot) -> Iterator[None]:
        """Hold the lock of a key. Raises Interrupted when the build ends before another process releases the lock."""
        path = f"{os.path.dirname(self._actions.root)}/locks/{KEYS}"
        held = tried_name(path, key)
        if held is None:
            slot.release()
            with self._profile.span("wait for another bk", "wait"):
                held = self._awaited(path, key, slot)
        try:
            yield
        finally:
            os.close(held)

    def _awaited(self, path: str, key: str, slot: JobSlot) -> int:
        while True:
            if self.stopped.wait(_BETWEEN_TRIES) or slot.over.is_set():
                raise Interrupted("interrupted", "another run of bk has not finished it")
            held = tried_name(path, key)
            if held is not None:
                return held

    def stage(self, action: Action) -> dict[str, Node]:
        """Return the inputs of an action whose dependencies have results, with their bytes on the disk. Raises BkError."""
        self._gather(action, Unscheduled(action.id))
        return self._make_readable(action, self._resolve(action))

    def _portable(self, action: Action) -> tuple[Action, dict[str, Node]]:
        found = self.portable(action)
        assert found is not None, action.id
        return found

    def portable(self, action: Action) -> tuple[Action, dict[str, Node]] | None:
        """Return the form of an action that an engine can run, and its inputs; None for an action that runs in bk alone.

        Its dependencies have results. Bytes that the remote cache has may not be on the disk. Raises BkError.
        """
        from bkrules.execution.portable_cell import is_portable, portable

        if not is_portable(action):
            return None
        covered = self._resolve(action)
        read = {**covered, **self._texts(action)}
        for path, item in action.inputs:
            if isinstance(item, ReachedOutput):
                read[path] = self.results[item.producer].outputs[item.path]
        return portable(action, covered, read, self._actions.cas)

    def _run(self, action: Action, key: Key, inputs: Mapping[str, Node]) -> Result:
        began = time.monotonic()
        try:
            readable = self._make_readable(action, inputs)
            with self._profile.span("run", "run"):
                context = self._context()
                outcome = context.runners[action.mnemonic](action, readable, context)
                self._profile.phases(outcome.outputs)
            with self._profile.span("store outputs", "cache"), _closed(outcome.handle):
                return self._settle(action, key, outcome, time.monotonic() - began)
        except BkError as error:
            return replace(failed(action, error), key=key, seconds=time.monotonic() - began)
        except OSError as error:
            lack = of_machine(error)
            if lack is None:
                raise
            return Result(
                action, Status.FAILED, False, reason=lack.message, failure=FailureClass.MACHINE, hint=lack.hint, key=key
            )

    def _settle(self, action: Action, key: Key, outcome: Outcome, seconds: float) -> Result:
        """Return the result of a run, which is stored when it is the answer of a first attempt and was fully isolated.

        A flaky result has outputs too, for the actions that need them.
        """
        if outcome.status != Status.PASSED and outcome.failure in CONTRADICTIONS:
            self._actions.drop(key.digest)
        log = "" if outcome.status == Status.PASSED else outcome.outputs.get("test.log", "")
        if outcome.status not in GOOD and not outcome.may_be_kept:
            return Result(
                action,
                outcome.status,
                False,
                seconds,
                key,
                {},
                outcome.reason,
                outcome.failure,
                log=log,
                ran=outcome.ran,
                is_kept=False,
            )
        # Checked first: storing an output with the bytes of a damaged input would repair that input.
        is_kept = outcome.may_be_kept and self._are_still(action)
        made = store(action, outcome, self._actions.cas)
        if is_kept:
            self._actions.put(key.digest, ActionResult(made, seconds, action.above))
        return Result(
            action,
            outcome.status,
            False,
            seconds,
            key,
            made,
            outcome.reason,
            outcome.failure,
            log=log,
            ran=outcome.ran,
            unlimited=outcome.unlimited,
            is_kept=is_kept,
        )

    def _are_still(self, action: Action) -> bool:
        """Return whether all inputs of the action still match its key.

        Files of the cache count too: somebody can write to them through their links in `bk-out`.
        """
        return all(self._is_still(item) for _, item in action.inputs)

    def _is_still(self, item: Artifact) -> bool:
        if isinstance(item, HostFile):
            return self._digests.is_still(find(item.path))
        if isinstance(item, HostFolder):
            return self._is_same(item)
        if isinstance(item, Source):
            return self._digests.is_still(self._place(item.path))
        if not self._is_sure(item):
            return False
        if isinstance(item, Text):
            names = [digest.of_bytes(item.read())]
        else:
            names = [file.digest for file in files_of(self.results[item.producer].outputs[item.path])]
        return all(map(self._actions.cas.is_still, names))

    def _is_certain(self, action: Action) -> bool:
        """Return whether a result of the action may have its key. An engine stores each result that it has."""
        return all(self._is_sure(item) for _, item in action.inputs)

    def _is_sure(self, item: Artifact) -> bool:
        """Return whether the key covers an input: what a test reaches, unless sources changed while its binary was built."""
        return not isinstance(item, ReachedOutput) or self.results[item.producer].is_kept

    def _is_same(self, folder: HostFolder) -> bool:
        """Return whether a folder of this machine still has the same files with the same bytes."""
        try:
            listing = list_files(folder.path, lambda _path: None)
        except (OSError, TooManyFiles):
            return False
        is_same = (listing.files, listing.links) == (folder.files, folder.links)
        return is_same and all(self._digests.is_still(f"{folder.path}/{name}") for name in folder.files)

    def _gather(self, action: Action, slot: JobSlot) -> None:
        """Fetch the bytes of inputs that only the remote cache has, and verify those of the disk cache.

        Lost or damaged inputs are made again. Their bytes may then differ, so the key of `action` is computed
        afterwards. Raises ActionFailed or RemoteFailed.
        """
        made = {name: self.results[name] for name in action.dependencies}
        away = {name: origin for name, origin in made.items() if origin.remote}
        lost = (
            self._actions.fetch(node for origin in away.values() for node in origin.outputs.values()) if away else set()
        )
        for name, origin in made.items():
            if name not in away:
                if not self._intact(origin):
                    self._make_again(name, origin, slot, _DAMAGED)
                continue
            result = ActionResult(origin.outputs, origin.seconds, origin.action.above)
            assert origin.key is not None
            if lost.intersection(file.digest for file in result.files()):
                self._make_again(name, origin, slot, "the remote cache lost what it made")
            elif origin.is_kept:  # not the answer of a flaky test
                self._actions.bring(origin.key.digest, result)

    def _mend(self, action: Action, slot: JobSlot) -> None:
        """Make the inputs again that are damaged on the disk, before they are sent to an engine. Raises as `_gather`."""
        assert self._actions.remote is not None
        for name, origin in {name: self.results[name] for name in action.dependencies}.items():
            files = {file.digest for node in origin.outputs.values() for file in files_of(node)}
            damaged = [blob for blob in self._actions.remote.unknown(files) if not self._actions.cas.intact(blob)]
            if damaged and not origin.remote:
                self._make_again(name, origin, slot, _DAMAGED)

    def _make_again(self, name: str, lost: Result, slot: JobSlot, why: str) -> None:
        """Replace a result whose outputs are lost. bk says so once, however many actions wait for them."""
        with self._lock:
            if self.results[name] is not lost:
                return  # another thread has done this meanwhile
            is_first = self._lost.get(name) is not lost
            self._lost[name] = lost
        action = lost.action
        if is_first:
            self._say(f"  {action.mnemonic} {action.title} once more: {why}")
        again = self.run(action, slot)
        if again.status not in GOOD:
            raise ActionFailed("remade", f"{action.title}: {again.reason}", hint=again.hint, log=again.log)
        with self._lock:
            if self.results[name] is lost:
                self.results[name] = again

    def _intact(self, result: Result) -> bool:
        """Return whether the disk cache has the outputs of an action with the right bytes. Damaged blobs are removed."""
        names = {file.digest for file in ActionResult(result.outputs, result.seconds).files()}
        damaged = [name for name in names if not self._actions.cas.intact(name)]
        return not damaged

    def _cached(self, action: Action, key: Key) -> Result | None:
        """Return the result from the disk cache when it may be used. Outputs for the user are read again."""
        may = self._may_be_cached(action)
        stored = self._actions.get(key.digest, action.declared, action.above) if may else None
        try:
            hit = None if stored is None else self._hit(action, key, stored)
        except ValueError:
            return None
        return None if hit and self._read(action) and not self._intact(hit) else hit

    def _hit(self, action: Action, key: Key, stored: ActionResult) -> Result:
        """Return the result of a cache hit. Raises ValueError for a cell when that result is no answer that bk keeps."""
        file, answer = _answer_of(action, stored), cell_answers.PASSED
        if file is not None:
            if file.digest.size > cell_answers.MOST:
                raise ValueError(f"its {RESULT} is too large")
            answer = cell_answers.parse(self._actions.cas.read(file.digest) or b"")
        return Result(action, answer.status, True, stored.seconds, key, stored.outputs, answer.reason, answer.failure)

    def _resolve(self, action: Action) -> dict[str, Node]:
        return {path: self._node(action, item) for path, item in action.inputs}

    def _node(self, action: Action, item: Artifact) -> Node:
        if isinstance(item, Output):
            outputs = self.results[item.producer].outputs
            return _reached(item, outputs) if isinstance(item, ReachedOutput) else outputs[item.path]
        if isinstance(item, Text):
            return FileNode(item.digest, "")  # `_make_readable` knows its path
        try:
            if isinstance(item, HostFolder):
                return self._folder(item)
            if isinstance(item, HostFile):
                path = find(item.path)
                return FileNode(self._digests.of(path), path, item.executable)
            path = self._place(item.path)
            return FileNode(self._digests.of(path), path, _is_executable(path))
        except OSError as error:
            raise ActionFailed("missing-file", f"{action.label}: cannot read {item.path}: {error.strerror}") from error

    def _folder(self, folder: HostFolder) -> DirectoryNode:
        """Return a folder of this machine. A link to a folder counts as a name, which holds its target."""
        if folder not in self._folders:
            paths = ((name, f"{folder.path}/{name}") for name in folder.files)
            files = {name: FileNode(self._digests.of(path), path) for name, path in paths}
            quoted = (f"{name} -> {target.replace('/', '|')}" for name, target in folder.links)
            links = dict.fromkeys(quoted, FileNode(digest.EMPTY, os.devnull))
            self._folders[folder] = DirectoryNode({**files, **links}, edited=True)
        return self._folders[folder]

    def _make_readable(self, action: Action, inputs: Mapping[str, Node]) -> dict[str, Node]:
        """Return the inputs with the texts in files that the action will read, under the digests that the key has."""
        texts = self._texts(action)
        return {
            path: replace(texts[path], digest=node.digest) if path in texts else node for path, node in inputs.items()
        }

    def _texts(self, action: Action) -> dict[str, FileNode]:
        """Store the texts of an action, of which a file may be damaged. Return those that it reads, as files."""
        cas, files = self._actions.cas, {}
        for path, item in action.inputs:
            if isinstance(item, Text):
                cas.put(item.data)
                name = cas.put(item.read())
                files[path] = FileNode(name, cas.path(name))
        return files


@contextmanager
def _closed(handle: int | None) -> Iterator[None]:
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _reached(item: ReachedOutput, outputs: Mapping[str, Node]) -> Node:
    """Return a binary with the digest of what a test reaches of it, if that is known."""
    binary, folder = outputs[item.path], outputs[item.reached]
    assert isinstance(binary, FileNode)
    assert isinstance(folder, DirectoryNode)
    name = next((name for name in item.names if name in folder.names), None)
    if name is None or folder.names[name].startswith(WHOLE):
        return binary
    return replace(binary, digest=digest.of_bytes(f"{name}/{folder.names[name]}".encode()))


def _answer_of(action: Action, stored: ActionResult) -> FileNode | None:
    """Return the file that says how a cell ended; None for another action."""
    return None if action.cell is None else cell_answers.file_of(stored.outputs)


def _is_executable(path: str) -> bool:
    return bool(os.stat(path).st_mode & stat.S_IXUSR)
