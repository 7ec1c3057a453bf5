"""The command of a user's own build: of buildctl, or of docker, whose options become those of buildctl.

Secrets, and all that leads out of a cell, are left out, each by its name.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from bkrules.declarative.own_build import folder_of
from bkrules.errors import UsageError
from bkrules.repro import secrets
from bkrules.repro.dockerignore import NAME as DOCKERIGNORE
from bkrules.repro.local_folder import LocalFolder, ignored_of
from bkrules.repro.secrets import Secrets

CONTEXT, DOCKERFILE = "context", "dockerfile"
DOCKER_FRONTEND = "dockerfile.v0"
_OUTPUT = "/tmp/output"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,99}").fullmatch
_REMOTE = re.compile(r"(?:https?|git|ssh)://|git@|github\.com/|\S+\.git(?:#|$)").match
_GATEWAY = re.compile(r"(?:docker\.io/)?docker/dockerfile(?:[-:@]|$)").match
_SECRET = "a secret"
_CACHE, _FILES, _DAEMON = "a cell has no other cache", "a cell ends with its files", "the daemon is the cell's"
_PUSH = "a cell has no registry to push to"
_OF_ALL = {"--secret": _SECRET, "--ssh": _SECRET, "--metadata-file": _FILES}
_OF_BUILDCTL = {
    **_OF_ALL,
    "--registry-auth-tlscontext": _SECRET,
    "--import-cache": _CACHE,
    "--export-cache": _CACHE,
    "--ref-file": _FILES,
    "--trace": _FILES,
    "--debug-json-cache-metrics": _FILES,
}
_OF_DOCKER = {**_OF_ALL, "--cache-from": _CACHE, "--cache-to": _CACHE, "--iidfile": _FILES, "--builder": _DAEMON}
_OF_CLIENT = dict.fromkeys(
    ("--addr", "--tlsservername", "--tlscacert", "--tlscert", "--tlskey", "--tlsdir"),
    _DAEMON,
)
_REFUSED = {
    "--oci-layout": "bk packs no OCI layout: name the image in the mirror",
    "--source-policy-file": "bk packs no source policy",
}


@dataclass(frozen=True)
class OwnCommand:
    """A build: the words of buildctl in a cell, the local folders, and the options that are left out, each with the reason."""

    words: tuple[str, ...]
    folders: tuple[LocalFolder, ...]
    left_out: tuple[str, ...]


def read(words: Sequence[str], known: Secrets) -> OwnCommand:
    """Return the build in the words of a command, which may contain `known` secrets. Raises UsageError."""
    for word in words:
        if not word.isprintable() and word != word.encode(errors="replace").decode():
            raise UsageError("usage", f"bk record: the word {word!r} is not UTF-8", hint="rename the file")
    return _Reader(known).read(list(words))


class _Parser(argparse.ArgumentParser):
    def __init__(self, command: str) -> None:
        super().__init__(prog=command, add_help=False, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        hint = "docs/repro.md lists the options that bk knows"
        raise UsageError("usage", f"bk record: {self.prog}: {message}", hint=hint)


@dataclass
class _Reader:
    known: Secrets
    left_out: list[str] = field(default_factory=list)

    def read(self, words: list[str]) -> OwnCommand:
        program = os.path.basename(words[0])
        if program in ("docker", "buildx", "docker-buildx"):
            return self._docker(words)
        rest = self._globals(words[1:]) if program == "buildctl" else words
        if rest[:1] not in (["build"], ["b"]):
            what = f"bk record runs `buildctl build` or `docker build`, but the command is {words[0]!r}"
            if program == "buildctl":
                what = f"bk record runs `buildctl build`, but the command is `buildctl {' '.join(rest[:1])}`"
            hint = (
                "write it as  bk record WORKER -- build --frontend=dockerfile.v0 --local context=. --local dockerfile=."
            )
            raise UsageError("usage", what, hint=hint)
        return self._buildctl(rest[1:])

    def _globals(self, words: list[str]) -> list[str]:
        parser = _Parser("buildctl")
        for name in ("--debug", "--wait"):
            parser.add_argument(name, action="store_true")
        for name in ("--timeout", "--log-format"):
            parser.add_argument(name)
        _add(parser, _OF_CLIENT)
        parser.add_argument("rest", nargs=argparse.REMAINDER)
        found = parser.parse_args(words)
        self._leave_out(found, _OF_CLIENT)
        rest: list[str] = found.rest
        return rest

    def _buildctl(self, words: list[str]) -> OwnCommand:
        parser = _Parser("buildctl build")
        for name in ("--local", "--opt", "--allow"):
            parser.add_argument(name, action="append", default=[])
        parser.add_argument("--output", "-o", action="append", default=[])
        parser.add_argument("--frontend", default="")
        parser.add_argument("--progress")
        for name in ("--no-cache", "--proxy-network"):
            parser.add_argument(name, action="store_true")
        _add(parser, [*_OF_BUILDCTL, *_REFUSED])
        parser.add_argument("rest", nargs="*")
        found = parser.parse_args(words)
        for name, why in _REFUSED.items():
            if getattr(found, _field(name)):
                raise UsageError("usage", f"bk record: {name}: {why}")
        if found.rest:
            parser.error(f"it takes no word {found.rest[0]!r}")
        if not found.frontend:
            hint = "say --frontend=dockerfile.v0"
            raise UsageError(
                "usage", "bk record: without --frontend, buildctl reads its build from standard input", hint=hint
            )
        self._leave_out(found, _OF_BUILDCTL)
        return self._build(found, dict(self._pair("--local", text) for text in found.local), found.opt)

    def _docker(self, words: list[str]) -> OwnCommand:
        rest = words[1:]
        while rest[:1] in (["buildx"], ["builder"], ["image"]):
            rest = rest[1:]
        if rest[:1] not in (["build"], ["b"]):
            hint = "write it as  bk record WORKER -- docker build ."
            raise UsageError(
                "usage", f"bk record runs `docker build`, but the command is `{' '.join(words[:3])}`", hint=hint
            )
        parser = _Parser("docker build")
        for name in ("--build-arg", "--label", "--build-context", "--allow", "--add-host"):
            parser.add_argument(name, action="append", default=[])
        parser.add_argument("--output", "-o", action="append", default=[])
        parser.add_argument("--tag", "-t", action="append")
        parser.add_argument("--file", "-f", default="")
        for name in ("--target", "--platform", "--progress", "--network"):
            parser.add_argument(name, default="")
        for name in ("--no-cache", "--pull", "--load", "--quiet", "-q", "--debug", "-D"):
            parser.add_argument(name, action="store_true")
        parser.add_argument("--push", action="store_true")
        _add(parser, _OF_DOCKER)
        parser.add_argument("folder", nargs="?", default="")
        found = parser.parse_args(rest[1:])
        if not found.folder or found.folder == "-":
            parser.error("it needs the folder of the context, such as '.'")
        _check_remote("the context", found.folder)
        self._leave_out(found, _OF_DOCKER)
        if found.push:
            self._note("--push", _PUSH)
        found.frontend, found.proxy_network = DOCKER_FRONTEND, False
        found.output = [text if "=" in text else f"type=local,dest={text}" for text in found.output]
        file = Path(found.file) if found.file else Path(found.folder, "Dockerfile")
        folders = {CONTEXT: found.folder, DOCKERFILE: str(file.parent)}
        return self._build(found, folders, [*self._docker_options(found, file.name, folders)])

    def _docker_options(self, found: argparse.Namespace, file: str, folders: dict[str, str]) -> Iterator[str]:
        """Yield the options of the frontend. Adds the folders of contexts with names to `folders`."""
        if file != "Dockerfile":
            yield f"filename={file}"
        for option, name in (("build_arg", "build-arg"), ("label", "label")):
            for text in getattr(found, option):
                if "=" in text:
                    yield f"{name}:{text}"
                else:
                    self._note(f"--{name} {text}", "its value is in the environment")
        for text in found.build_context:
            name, value = self._pair("--build-context", text)
            if not re.match(r"[a-z-]+://", value):
                folders[name] = value
                value = f"local:{name}"
            yield f"context:{name}={value}"
        for name, value in (("target", found.target), ("platform", found.platform)):
            if value:
                yield f"{name}={value}"
        if found.network:
            yield f"force-network-mode={found.network}"
        if found.add_host:
            yield f"add-hosts={','.join(text.replace(':', '=', 1) for text in found.add_host)}"

    def _build(self, found: argparse.Namespace, paths: Mapping[str, str], opts: Sequence[str]) -> OwnCommand:
        options = dict(self._pair("--opt", text) for text in opts)
        for name, value in options.items():
            if name == CONTEXT or name.startswith(f"{CONTEXT}:"):
                _check_remote(f"--opt {name}", value)
        for name in [name for name in options if self._is_secret(name, options[name])]:
            self._note(f"--opt {name}", _SECRET)
            del options[name]
        words = ["build", "--progress=plain", f"--frontend={found.frontend}"]
        words += [f"--local={name}={folder_of(name)}" for name in paths]
        words += [f"--opt={name}={value}" for name, value in options.items()]
        words += [f"--allow={name}" for name in found.allow]
        words += [f"--{_option(name)}" for name in ("no_cache", "proxy_network") if getattr(found, name)]
        words += [f"--output={self._output(number, text)}" for number, text in enumerate(found.output)]
        self._check_words(words)
        is_docker = found.frontend == DOCKER_FRONTEND or bool(_GATEWAY(options.get("source", "")))
        folders = [_folder(name, paths, options.get("filename", "Dockerfile"), is_docker=is_docker) for name in paths]
        return OwnCommand(tuple(words), tuple(folders), tuple(self.left_out))

    def _output(self, number: int, text: str) -> str:
        """Return an output whose files are in the cell."""
        try:
            (fields,) = csv.reader([text], strict=True)
        except (csv.Error, ValueError) as error:
            raise UsageError("usage", f"bk record: --output={text} is malformed") from error
        kept = []
        for one in fields:
            name, _, value = one.partition("=")
            if name == "push" and value != "false":
                self._note(f"{one} of --output", _PUSH)
            else:
                kept.append(f"dest={_OUTPUT}/{number}" if name == "dest" else one)
        return ",".join(f'"{one}"' if "," in one else one for one in kept)

    def _is_secret(self, name: str, value: str) -> bool:
        is_argument = name.startswith("build-arg:")
        return (is_argument and secrets.is_telling(name.partition(":")[2])) or bool(
            any(secrets.in_url(value)) or secrets.found_in([value.encode()], self.known)
        )

    def _check_words(self, words: Sequence[str]) -> None:
        for word in words:
            if name := secrets.found_in([word.encode(errors="surrogateescape")], self.known):
                option = word.partition("=")[0]
                what = f"bk record: {option} contains the value of {name}, which must not get into a file"
                raise UsageError("secret", what, hint=f"leave it out, or unset {name} when it is no secret")

    def _pair(self, option: str, text: str) -> tuple[str, str]:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError("usage", f"bk record: {option} must be NAME=VALUE, but was {text!r}")
        if option != "--opt" and not _NAME(name):
            raise UsageError("usage", f"bk record: {option}: {name!r} cannot be the name of a folder in a cell")
        return name, value

    def _leave_out(self, found: argparse.Namespace, options: Mapping[str, str]) -> None:
        for name, why in options.items():
            for text in getattr(found, _field(name)) or ():
                self._note(f"{name} {_named(text)}" if why == _SECRET else name, why)

    def _note(self, what: str, why: str) -> None:
        self.left_out.append(f"{what} ({why})")


def _add(parser: argparse.ArgumentParser, names: Iterable[str]) -> None:
    for name in names:
        parser.add_argument(name, action="append")


def _folder(name: str, paths: Mapping[str, str], file: str, *, is_docker: bool) -> LocalFolder:
    """Return a local folder with what its frontend reads of it. Raises UsageError."""
    path = Path(paths[name])
    if not is_docker:
        return LocalFolder(name, path)
    if name == DOCKERFILE:
        return LocalFolder(name, path, only={file, f"{file}{DOCKERIGNORE}", file.lower()})
    own = [Path(paths[DOCKERFILE], f"{file}{DOCKERIGNORE}")] if name == CONTEXT and DOCKERFILE in paths else []
    return LocalFolder(name, path, ignored_of(*own, path / DOCKERIGNORE))


def _check_remote(option: str, value: str) -> None:
    if _REMOTE(value):
        what = f"bk record: {option} is {secrets.without_credentials(value)}, and a cell has no network"
        raise UsageError("usage", what, hint="get a copy of it, and name its folder:  --local context=DIR")


def _named(text: str) -> str:
    """Return the part of a secret's option that names it: its id."""
    found = re.match(r"(?:.*,)?(id=[^,]*)", text)
    return found[1] if found else text.partition("=")[0]


def _field(option: str) -> str:
    return option.lstrip("-").replace("-", "_")


def _option(name: str) -> str:
    return name.replace("_", "-")
