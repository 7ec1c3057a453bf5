"""The remote cache of one build: transfers blobs to and from the disk cache, several at a time, in its own threads."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial
from typing import Any, Protocol, TypeVar

from bkrules.cache.breaker import Warn
from bkrules.cache.cas import Cas
from bkrules.cache.http_store import HttpStore, Receive
from bkrules.cache.remote_options import RemoteOptions
from bkrules.errors import RemoteFailed
from bkrules.model.digest import EMPTY, Digest

_T = TypeVar("_T")
DOWNLOADS = 16
UPLOADS = 4


class Store(Protocol):
    """The client of one server, by any protocol. Only RemoteFailed is raised: every other fault is a miss."""

    @property
    def readable(self) -> bool: ...
    @property
    def writable(self) -> bool: ...
    @property
    def fault(self) -> str: ...
    @property
    def answers(self) -> bool: ...
    def result(self, key: Digest) -> bytes | None: ...
    def lied(self, what: str) -> None: ...
    def groups(self, names: Iterable[Digest]) -> list[list[Digest]]: ...
    def blobs(self, names: Iterable[Digest], receive: Receive) -> set[Digest]: ...
    def missing(self, names: Iterable[Digest]) -> set[Digest]: ...
    def put_blobs(self, paths: Mapping[Digest, str]) -> set[Digest]: ...
    def put_result(self, key: Digest, data: bytes) -> bool: ...
    def repeat_no_more(self) -> None: ...
    def close(self) -> None: ...


def _store(options: RemoteOptions, warn: Warn) -> Store:
    if not options.is_grpc:
        return HttpStore(options, warn)
    from bkrules.cache.grpc_store import GrpcStore

    return GrpcStore(options, warn)


class Remote:
    """A remote cache next to the disk cache. Raises RemoteFailed for a fault when the cache is required, and nothing
    otherwise.
    """

    def __init__(self, options: RemoteOptions, cas: Cas, warn: Warn) -> None:
        self._store = _store(options, warn)
        self._is_required = options.required
        self.option = options.option
        """The option of the command line that names the server."""
        self._cas = cas
        self._lock = threading.Lock()
        self._downloads = _Pool(DOWNLOADS, "download")
        self._uploads = _Pool(UPLOADS, "upload")
        self._over: Future[set[Digest]] = Future()
        self._fetching: dict[Digest, Future[set[Digest]]] = {}
        self._sending: dict[Digest, Future[set[Digest]]] = {}
        self._jobs: list[Future[None]] = []
        self.checks_directories = options.is_grpc
        """Whether servers of the protocol may look for each folder of a result as a blob."""
        self.sent = 0
        """The number of results that the server took."""
        self._there: set[Digest] = {EMPTY}
        self._suspect: set[Digest] = set()

    @property
    def readable(self) -> bool:
        """Whether bk still reads from the server."""
        return self._store.readable

    @property
    def fault(self) -> str:
        """The first fault of the server, with its address; empty for none."""
        return self._store.fault

    @property
    def answers(self) -> bool:
        """Whether the server has answered a request."""
        return self._store.answers

    @property
    def failed(self) -> bool:
        """Whether there was a fault of a server that is required."""
        return self._is_required and bool(self.fault)

    def result(self, key: Digest) -> bytes | None:
        """Return the unchecked bytes of an action result."""
        return self._store.result(key)

    def lied(self, what: str) -> None:
        """Record an answer with wrong content."""
        self._store.lied(what)

    def fetch(self, names: Iterable[Digest]) -> set[Digest]:
        """Fetch blobs to the disk cache, each once for all threads. Return those that could not be fetched."""
        wanted: dict[Digest, Future[set[Digest]]] = {}
        with self._lock:
            lacking = [name for name in dict.fromkeys(names) if not self._cas.has(name)]
            for group in self._store.groups(name for name in lacking if name not in self._fetching):
                future = self._downloads.submit(partial(self._download, group))
                self._fetching.update(dict.fromkeys(group, future))
            wanted = {name: self._fetching[name] for name in lacking}
        return {name for name, future in wanted.items() if name not in self._answer(future)}

    def _answer(self, future: Future[set[Digest]]) -> set[Digest]:
        """Return the blobs that were fetched; none when the transfers end before."""
        if not future.done():
            wait((future, self._over), return_when=FIRST_COMPLETED)
        return future.result() if future.done() else set()

    def _download(self, names: list[Digest]) -> set[Digest]:
        good: set[Digest] = set()
        try:
            if EMPTY in names:
                good.add(self._cas.put(b""))
            if not self._over.done():
                good |= self._store.blobs([name for name in names if name != EMPTY], self._receive)
            return good
        finally:
            with self._lock:
                for name in names:
                    del self._fetching[name]
                    (self._there if name in good else self._suspect).add(name)

    def _receive(self, name: Digest, pieces: Iterator[bytes]) -> None:
        """Store a blob, unless the transfers end before. Raises ValueError."""

        def until_the_end() -> Iterator[bytes]:
            for piece in pieces:
                if self._over.done():
                    raise ValueError("the transfer was ended")
                yield piece

        self._cas.receive(name, until_the_end())

    def upload(self, key: Digest, result: bytes, blobs: Iterable[Digest]) -> None:
        """Send a result in the background: its blobs first, since a server may refuse a result without them."""
        if self._store.writable:
            self._jobs.append(self._uploads.submit(partial(self._put, key, result, sorted(set(blobs)))))

    def send(self, paths: Mapping[Digest, str]) -> bool:
        """Send the bytes of files that the server lacks, each once for all threads. Return whether it has all of them now.

        The calling thread sends the first group, so that many threads with a small group each do not wait for a few.
        """
        future: Future[set[Digest]] = Future()
        good: set[Digest] = set()
        with self._lock:
            theirs = {name: self._sending[name] for name in paths if name in self._sending}
            own = sorted(paths.keys() - theirs.keys())
            self._sending.update(dict.fromkeys(own, future))
        try:
            lacking = self._lacking(own)
            good.update(set(own).difference(lacking))
            groups = self._store.groups(lacking)
            jobs = [self._uploads.submit(partial(self._put_blobs, group, paths.__getitem__)) for group in groups[1:]]
            for group in groups[:1]:
                good |= self._put_blobs(group, paths.__getitem__)
            wait(jobs)
            good.update(*(job.result() for job in jobs))
        finally:
            with self._lock:
                for name in own:
                    del self._sending[name]
            future.set_result(good)
        return good.issuperset(own) and all(name in sent.result() for name, sent in theirs.items())

    def unknown(self, names: Iterable[Digest]) -> set[Digest]:
        """Return the blobs that the server may lack."""
        with self._lock:
            return {name for name in names if name not in self._there or name in self._suspect}

    def forget(self) -> None:
        """Forget which blobs the server has, after a sign that it has lost one."""
        with self._lock:
            self._there = {EMPTY}

    def push(self, key: Digest, result: bytes, blobs: Iterable[Digest]) -> None:
        """Send a result in the background, unless the server has one for its action."""
        wanted = sorted(set(blobs))
        self._jobs.append(self._uploads.submit(lambda: None if self.result(key) else self._put(key, result, wanted)))

    def _put(self, key: Digest, result: bytes, blobs: list[Digest]) -> None:
        groups = self._store.groups(self._lacking(blobs))
        if all(self._put_blobs(group, self._cas.path).issuperset(group) for group in groups):
            good = self._store.put_result(key, result)
            with self._lock:
                self.sent += good

    def _lacking(self, names: list[Digest]) -> list[Digest]:
        """Return the blobs to send. A server that lost a blob or damaged it may still claim to have it, so bk skips the
        question for such blobs.
        """
        with self._lock:
            suspect = self._suspect.intersection(names)
            unknown = [name for name in names if name not in suspect and name not in self._there]
        lacking = suspect.union(self._store.missing(unknown) if unknown else ())
        with self._lock:
            self._there.update(name for name in unknown if name not in lacking)
        return [name for name in names if name in lacking]

    def _put_blobs(self, names: list[Digest], place: Callable[[Digest], str]) -> set[Digest]:
        good = set() if self._over.done() else self._store.put_blobs({name: place(name) for name in names})
        with self._lock:
            self._there |= good
            self._suspect -= good
        return good

    def flush(self) -> str:
        """Wait for all uploads. Return why an upload failed, when the cache is required."""
        wait(self._jobs)
        errors = [job.exception() for job in self._jobs]
        return next((error.message for error in errors if isinstance(error, RemoteFailed)), "")

    def end(self) -> None:
        """Let all threads that wait for a blob continue without it. Transfers end with their next byte, and no other begins."""
        self._over.set_result(set())

    def repeat_no_more(self) -> None:
        """Repeat no request that has no answer, since the build ends."""
        self._store.repeat_no_more()

    def close(self) -> None:
        """End the threads and the connections, for a process that outlives them. There must be no transfer under way, but
        those that `end` ends.
        """
        self._downloads.close()
        self._uploads.close()
        self._store.close()


class _Pool:
    """Threads that do not delay the end of the process, unlike those of concurrent.futures."""

    def __init__(self, size: int, name: str) -> None:
        self._size, self._name = size, name
        self._work: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def submit(self, call: Callable[[], _T]) -> Future[_T]:
        """Return a future of the result of `call`."""
        future: Future[_T] = Future()
        self._work.put((future, call))
        if len(self._threads) < self._size:
            thread = threading.Thread(target=self._serve, name=f"{self._name}-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        return future

    def close(self) -> None:
        """End the threads."""
        for _ in self._threads:
            self._work.put(None)

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            future, call = work
            try:
                future.set_result(call())
            except BaseException as error:  # the caller that waits for the future raises it
                future.set_exception(error)
