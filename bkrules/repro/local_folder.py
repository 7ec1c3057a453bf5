"""Packs a local folder of a build: the files that the frontend may read, as a tar archive."""

from __future__ import annotations

import io
import os
import re
import stat
import tarfile
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from bkrules.errors import ActionFailed, UsageError
from bkrules.repro import secrets
from bkrules.repro.dockerignore import NAME, Ignored
from bkrules.repro.secrets import Secrets
from bkrules.system.files import open_regular, read_regular

MOST = 256 << 20
"""The limit in bytes of the files of a build's local folders."""
MOST_FILES = 50_000
"""The limit of files and folders in a local folder."""
_MIB = 1 << 20
_SHOWN = 3
_TELLING = re.compile(
    r"(?:^|/)(?:\.env(?:\..*)?|\.netrc|\.npmrc|\.pypirc|\.git-credentials|id_(?:rsa|dsa|ecdsa|ed25519)|credentials)$"
)
_PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----")
_KINDS = {stat.S_IFSOCK: "a socket", stat.S_IFIFO: "a FIFO", stat.S_IFBLK: "a device", stat.S_IFCHR: "a device"}


@dataclass(frozen=True)
class Packed:
    """A packed folder: the bytes of its archive, and the paths of files that look like secrets."""

    data: bytes
    telling: tuple[str, ...]


@dataclass
class LocalFolder:
    """A local folder of a build by its name and its path on this machine.

    `ignored` are the files that its frontend leaves out. With `only`, the frontend reads no other files than these paths.
    """

    name: str
    path: Path
    ignored: Ignored = field(default_factory=Ignored)
    only: Collection[str] | None = None
    size: int = field(default=0, init=False)

    def pack(self, known: Secrets, room: int = MOST) -> Packed:
        """Return the packed folder, whose files may have `room` bytes.

        Raises UsageError for a folder that is missing or too large, and for a file that no archive can have, and
        ActionFailed for a file with one of the `known` secrets.
        """
        if not self.path.is_dir():
            what = "is not a folder" if self.path.exists() else "does not exist"
            raise UsageError("no-folder", f"--local {self.name}: {self.path} {what}", hint="name a folder")
        entries = list(self._entries())
        self.size = sum(state.st_size for _, state in entries if stat.S_ISREG(state.st_mode))
        if self.size > room:
            raise self._too_large(entries, room)
        file, telling = io.BytesIO(), []
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for path, state in entries:
                data = self._data(path, state)
                if name := secrets.found_in([data], known):
                    what = f"{self.path / path} contains the value of {name}, so bk wrote no file"
                    hint = f"name it in {NAME} or remove it there, or unset {name} when it is no secret"
                    raise ActionFailed("secret", what, hint=hint)
                if _TELLING.search(path) or _PRIVATE_KEY.search(data):
                    telling.append(path)
                tar.addfile(self._header(path, state, len(data)), io.BytesIO(data))
        return Packed(file.getvalue(), tuple(telling))

    def _entries(self) -> Iterator[tuple[str, os.stat_result]]:
        """Yield the paths that the frontend may read, a folder before its files. Raises UsageError."""
        only = self._only()
        found = 0
        waiting: list[tuple[str, os.stat_result]] = []
        for path, state in self._walk("", only):
            while waiting and not path.startswith(f"{waiting[-1][0]}/"):
                waiting.pop()
            if path not in only if only is not None else self.ignored.has(path) and path != NAME:
                if stat.S_ISDIR(state.st_mode):
                    waiting.append((path, state))  # it is in the context when a file below it is
                continue
            yield from waiting
            yield path, state
            found += 1 + len(waiting)
            waiting = []
            if found > MOST_FILES:
                what = f"--local {self.name}: {self.path} has more than {MOST_FILES} files"
                raise UsageError("too-large", what, hint=f"name those that the build does not need in {NAME}")

    def _only(self) -> Collection[str] | None:
        """Return the paths of the only files that the frontend reads; None when a link may lead it to others."""
        for path in self.only or ():
            place = self.path / path
            if place.exists() and place.resolve() != self.path.resolve() / path:
                return None
        return self.only

    def _walk(self, folder: str, only: Collection[str] | None) -> Iterator[tuple[str, os.stat_result]]:
        try:
            with os.scandir(self.path / folder) as entries:
                names = sorted(entry.name for entry in entries)
            for name in names:
                path = f"{folder}/{name}" if folder else name
                state = os.lstat(self.path / path)
                yield path, state
                if stat.S_ISDIR(state.st_mode) and self._may_have(path, only):
                    yield from self._walk(path, only)
        except OSError as error:
            raise self._unreadable(str(error.filename or folder), error) from error

    def _may_have(self, folder: str, only: Collection[str] | None) -> bool:
        """Return whether a file below a folder may be in the context."""
        if only is not None:
            return any(path.startswith(f"{folder}/") for path in only)
        return self.ignored.has_exceptions or not self.ignored.has(folder)

    def _data(self, path: str, state: os.stat_result) -> bytes:
        if kind := _KINDS.get(stat.S_IFMT(state.st_mode)):
            what = f"--local {self.name}: {self.path / path} is {kind}, which no file can carry"
            raise UsageError("bad-file", what, hint=f"name it in {NAME}, or remove it")
        if not stat.S_ISREG(state.st_mode):
            return b""
        try:
            with open_regular(self.path / path, follow=False) as file:
                data = file.read(state.st_size + 1)
        except OSError as error:
            raise self._unreadable(str(self.path / path), error) from error
        if len(data) != state.st_size:
            raise ActionFailed("changed-input", f"{self.path / path} has changed meanwhile", hint="run it again")
        return data

    def _header(self, path: str, state: os.stat_result, size: int) -> tarfile.TarInfo:
        """Return a member as BuildKit gets it: with its mode and its time, and of no user."""
        header = tarfile.TarInfo(path)
        header.mode, header.mtime, header.size = stat.S_IMODE(state.st_mode), int(state.st_mtime), size
        if stat.S_ISDIR(state.st_mode):
            header.type = tarfile.DIRTYPE
        elif stat.S_ISLNK(state.st_mode):
            header.type, header.linkname = tarfile.SYMTYPE, os.readlink(self.path / path)
        return header

    def _too_large(self, entries: list[tuple[str, os.stat_result]], room: int) -> UsageError:
        sizes: dict[str, int] = {}
        for path, state in entries:
            if stat.S_ISREG(state.st_mode):
                top = path.partition("/")[0]
                sizes[top] = sizes.get(top, 0) + state.st_size
        largest = sorted(sizes, key=sizes.__getitem__, reverse=True)[:_SHOWN]
        shown = ", ".join(f"{name} ({sizes[name] / _MIB:.1f} MiB)" for name in largest)
        what = f"--local {self.name}: {self.path} has {self.size / _MIB:.1f} MiB, and a file may have {room / _MIB:.1f} MiB"
        return UsageError(
            "too-large", f"{what}; the largest are {shown}", hint=f"name what the build does not need in {NAME}"
        )

    def _unreadable(self, path: str, error: OSError) -> UsageError:
        return UsageError("unreadable", f"--local {self.name}: cannot read {path}: {error.strerror}")


def ignored_of(*places: Path) -> Ignored:
    """Return the patterns of the first of these files that exists. Raises UsageError."""
    for place in places:
        with suppress(FileNotFoundError, NotADirectoryError):
            try:
                return Ignored(read_regular(place, MOST).decode(errors="surrogateescape"))
            except UsageError as error:
                raise UsageError(error.reason, f"{place.parent}/{error.message}", hint=error.hint) from error
    return Ignored()
