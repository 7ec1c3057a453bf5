"""The remote cache of one build: transfers blobs to and from the disk cache, several at a time, in its own threads."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from functools import partial
from typing import Any, TypeVar

from bkrules.cache.cas import Cas
from bkrules.cache.http_store import HttpStore, Warn
from bkrules.cache.remote_options import RemoteOptions
from bkrules.errors import MachineLacks
from bkrules.model.digest import EMPTY, Digest

_T = TypeVar("_T")
DOWNLOADS = 16
UPLOADS = 4
ASK_FIRST = 64 << 10  # bytes; bk sends a smaller blob without asking the server whether it has it


class Remote:
    """A remote cache next to the disk cache. Raises MachineLacks for a fault when the cache is required, and nothing
    otherwise.
    """

    def __init__(self, options: RemoteOptions, cas: Cas, warn: Warn) -> None:
        self._store = HttpStore(options, warn)
        self._cas = cas
        self._lock = threading.Lock()
        self._downloads = _Pool(DOWNLOADS, "download")
        self._uploads = _Pool(UPLOADS, "upload")
        self._fetching: dict[Digest, Future[bool]] = {}
        self._jobs: list[Future[None]] = []
        self._there: set[Digest] = {EMPTY}
        self._suspect: set[Digest] = set()

    @property
    def readable(self) -> bool:
        """Whether bk still reads from the server."""
        return self._store.readable

    def result(self, key: Digest) -> bytes | None:
        """Return the unchecked bytes of an action result."""
        return self._store.result(key)

    def lied(self, what: str) -> None:
        """Record an answer with wrong content."""
        self._store.lied(what)

    def fetch(self, names: Iterable[Digest]) -> set[Digest]:
        """Fetch blobs to the disk cache, each once for all threads. Return those that could not be fetched."""
        wanted: dict[Digest, Future[bool]] = {}
        with self._lock:
            for name in names:
                if name in wanted or self._cas.has(name):
                    continue
                if name not in self._fetching:
                    self._fetching[name] = self._downloads.submit(partial(self._download, name))
                wanted[name] = self._fetching[name]
        return {name for name, future in wanted.items() if not future.result()}

    def _download(self, name: Digest) -> bool:
        good = False
        try:
            if name == EMPTY:
                self._cas.put(b"")
                good = True
            else:
                good = self._store.blob(name, self._cas.receive)
            return good
        finally:
            with self._lock:
                del self._fetching[name]
                (self._there if good else self._suspect).add(name)

    def upload(self, key: Digest, result: bytes, blobs: Iterable[Digest]) -> None:
        """Send a result in the background: its blobs first, since a server may refuse a result without them."""
        if self._store.writable:
            self._jobs.append(self._uploads.submit(partial(self._put, key, result, sorted(set(blobs)))))

    def _put(self, key: Digest, result: bytes, blobs: list[Digest]) -> None:
        if all(self._put_blob(name) for name in blobs):
            self._store.put_result(key, result)

    def _put_blob(self, name: Digest) -> bool:
        """Send a blob, unless the server has it. A server that lost a blob or damaged it may still claim to have it, so
        bk skips the question for such blobs.
        """
        with self._lock:
            known, suspect = name in self._there, name in self._suspect
        if not suspect and (known or (name.size >= ASK_FIRST and self._store.has(name))):
            return True
        good = self._store.put_blob(name, self._cas.path(name))
        if good:
            with self._lock:
                self._there.add(name)
                self._suspect.discard(name)
        return good

    def flush(self) -> str:
        """Wait for all uploads. Return why an upload failed, when the cache is required."""
        wait(self._jobs)
        errors = [job.exception() for job in self._jobs]
        return next((error.message for error in errors if isinstance(error, MachineLacks)), "")


class _Pool:
    """Threads that do not delay the end of the process, unlike those of concurrent.futures."""

    def __init__(self, size: int, name: str) -> None:
        self._size, self._name = size, name
        self._work: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
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

    def _serve(self) -> None:
        while True:
            future, call = self._work.get()
            try:
                future.set_result(call())
            except BaseException as error:  # the caller that waits for the future raises it
                future.set_exception(error)
