"""The destination of a mirror's copy: a folder, or a registry."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from bkrules.errors import ActionFailed, UsageError
from bkrules.images.documents import Manifest
from bkrules.images.protocol import Place
from bkrules.images.storage import Tree
from bkrules.model.reference import Reference, parse_reference
from bkrules.system import locks

if TYPE_CHECKING:
    from bkrules.images.push import Registry

_IN_THE_WAY = (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.ENOTEMPTY, errno.ENAMETOOLONG)
REGISTRY = "docker://"
"""The prefix of a registry where a folder is possible too, as in skopeo and other tools of containers."""


class Destination(Protocol):
    """Images by their references."""

    def tagged(self, reference: Reference) -> str:
        """Return the digest of a reference at the destination, with all of its blobs, or an empty text."""

    def place(self, reference: Reference) -> Place:
        """Return the place for the blobs and manifests of a reference."""

    def tag(self, reference: Reference, manifest: Manifest) -> None:
        """Tag an image whose blobs are at the destination."""


class Folder:
    """A folder that a registry serves, laid out as `BUILDKIT_REGISTRY_MIRROR_DIR` of BuildKit's harness."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def tagged(self, reference: Reference) -> str:
        """Return the digest of a reference in the folder, with all of its blobs, or an empty text."""
        digest = self._tree.tagged(reference)
        if digest is None:
            return ""
        try:
            whole = all(os.path.exists(self._tree.path(name)) for name, _ in self._tree.blobs(digest))
        except ActionFailed:
            return ""
        return digest if whole else ""

    def place(self, reference: Reference) -> Place:
        """Return the tree, which has the blobs of all repositories."""
        return self._tree

    def tag(self, reference: Reference, manifest: Manifest) -> None:
        """Tag an image whose blobs are in the folder."""
        self._tree.add(reference, manifest.digest)


def check_places(references: Iterable[Reference]) -> None:
    """Raise UsageError when two references have the same place on a mirror, which has repositories and tags but no hosts."""
    places: dict[tuple[str, str], Reference] = {}
    for reference in references:
        other = places.setdefault((reference.repository, reference.tag), reference)
        if other != reference:
            raise UsageError(
                "one-place",
                f"{other} and {reference} have the same place on a mirror",
                hint="a mirror knows repositories and tags, but no hosts; copy them to two mirrors",
            )


def address(to: str) -> tuple[str, str] | None:
    """Return host and prefix of a registry, or None for a folder. Raises UsageError."""
    if not to.startswith(REGISTRY):
        return None
    host, _, prefix = to.removeprefix(REGISTRY).partition("/")
    try:
        parse_reference(f"{host}/{prefix or 'any'}:any")
    except ValueError:
        raise UsageError("usage", f"{to!r} is no registry", hint=f"as in {REGISTRY}host:5000/prefix") from None
    return host, prefix


@contextmanager
def opened(to: str) -> Iterator[Folder | Registry]:
    """Open the folder `to`, locked, or the registry `docker://HOST[/PREFIX]`. Raises UsageError."""
    registry = address(to)
    if registry is None:
        with locked(to) as tree:
            yield Folder(tree)
        return
    from bkrules.images.push import Registry
    from bkrules.images.registry_client import RegistryClient

    host, prefix = registry
    with closing(RegistryClient(host)) as client:
        yield Registry(client, prefix)


@contextmanager
def locked(folder: str) -> Iterator[Tree]:
    """Open the tree of a mirror's folder, with the lock of BuildKit's harness.

    Raises UsageError for a file in the place of a folder, and for a folder or a link in the place of a file.
    """
    try:
        with _lock(folder):
            yield Tree(Path(folder, "data"))
    except OSError as error:
        if error.errno not in _IN_THE_WAY:
            raise
        path = error.filename2 or error.filename or folder
        hint = f"remove it, or name another folder than {folder}"
        raise UsageError("bad-mirror", f"{path}: {error.strerror}", hint=hint) from error


@contextmanager
def _lock(folder: str) -> Iterator[None]:
    os.makedirs(folder, mode=0o700, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(f"{folder}/lock", flags, 0o666), "rb+", buffering=0) as lock:
        locks.hold(lock.fileno(), waiting=lambda: print(f"waiting for another user of {folder}", file=sys.stderr))
        yield
