"""The build of a cell, and what it made: runs buildctl as a user does, and reads what BuildKit exports."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from bkrules.declarative.rootfs import RootFs
from bkrules.declarative.seen import CONTEXT, DOCKERFILE, FAILURE_MARK, BuildRequest, Seen, Step
from bkrules.testing.sandbox import CommandFailed, Sandbox

ROOT = "/src"
EPOCH = "SOURCE_DATE_EPOCH"
_SYNTAX = "BUILDKIT_SYNTAX"
_STEP = re.compile(r"#(\d+) \[[^\]]*\d+/\d+\] (.*)").fullmatch
_CACHED = re.compile(r"#(\d+) CACHED").fullmatch
_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_LAYERS = re.compile(r"application/vnd\.(oci\.image|docker\.image\.rootfs)\..*tar(.gzip|\+gzip)?").fullmatch


def observe(sandbox: Sandbox, request: BuildRequest, folder: Path) -> tuple[Seen, str]:
    """Build, and return what the build made, with its output. Raises CommandFailed when buildctl could not ask for the build."""
    archive = folder / "image.tar"
    has_image = sandbox.supports("oci_exporter")
    exporter = "type=oci,rewrite-timestamp=true" if has_image else "type=tar"
    command = [*words(request, sandbox.axes), "--output", f"{exporter},dest={archive}"]
    try:
        done = sandbox.run(command)
    except CommandFailed as error:
        output = error.completed.stdout + error.completed.stderr
        if FAILURE_MARK not in output:
            raise
        return Seen(failure=_last_line(output)), output
    files = RootFs(request.contents)
    image = _image(archive, files) if has_image else _flat(archive, files, sandbox.worker)
    steps: tuple[Step, ...] = ()
    if request.twice:
        again = sandbox.run(command)
        steps = tuple(_steps(again.stdout + again.stderr))
    return Seen(rootfs=files.entries, contents=files.contents, steps=steps, **image), done.stdout + done.stderr


def words(request: BuildRequest, axes: Mapping[str, Any]) -> list[str]:
    """Return the words of buildctl for a build, changed by the values of axes."""
    target, platform, arguments = request.target, request.platform, {EPOCH: "0", **request.build_args}
    for _, axis in sorted(axes.items()):
        value = axis.value if isinstance(axis.value, dict) else {}
        target, platform = value.get("target", target), value.get("platform", platform)
        arguments |= value.get("build_args", {})
    frontend = ["--frontend=gateway.v0", "--opt", f"source={request.frontend}"]
    options = {"filename": request.filename, "target": target, "platform": platform}
    options |= {f"build-arg:{name}": value for name, value in sorted(arguments.items())}
    found = ["build", "--progress=plain", *(frontend if request.frontend else ["--frontend=dockerfile.v0"])]
    for name in (CONTEXT, DOCKERFILE):
        found += ["--local", f"{name}={ROOT}/{name}"]
    # BuildKit passes the build to the image of a line `# syntax=` unless this option exists, even if it is empty.
    found += [] if _SYNTAX in arguments else ["--opt", "cmdline="]
    return found + [word for name, value in options.items() if value for word in ("--opt", f"{name}={value}")]


def _last_line(output: str) -> str:
    return next((line.strip() for line in reversed(output.splitlines()) if FAILURE_MARK in line), output.strip())


def _steps(output: str) -> Iterator[Step]:
    """Yield the instructions of a plain output, without FROM."""
    lines = output.splitlines()
    cached = {found[1] for found in map(_CACHED, lines) if found}
    names = {found[1]: found[2] for found in map(_STEP, lines) if found}
    for number, name in names.items():
        if not name.startswith("FROM "):
            yield Step(name, number in cached)


def _flat(archive: Path, files: RootFs, worker: str) -> dict[str, Any]:
    with archive.open("rb") as file:
        files.add_layer(file)
    return {"unknown": f"unknown, since {worker} cannot export an OCI image"}


def _image(archive: Path, files: RootFs) -> dict[str, Any]:
    """Read an OCI archive. Return the fields of `Seen` for its image, and add its layers to `files`."""
    with tarfile.open(archive) as tar:
        descriptor = _json(tar, "index.json")["manifests"][0]
        digest = descriptor["digest"]
        while descriptor["mediaType"] in _INDEXES:
            descriptor = _json(tar, _blob(descriptor))["manifests"][0]
        manifest = _json(tar, _blob(descriptor))
        for layer in manifest["layers"]:
            if not _LAYERS(layer["mediaType"]):
                raise ValueError(
                    f"bk cannot read a layer of the type {layer['mediaType']}: use a base with gzip layers"
                )
            with _opened(tar, _blob(layer)) as file:
                files.add_layer(file)
        config = _json(tar, _blob(manifest["config"]))
    layers = config.pop("rootfs")["diff_ids"]
    return {"config": config, "layers": tuple(layers), "digest": digest}


def _blob(descriptor: Mapping[str, Any]) -> str:
    return f"blobs/{descriptor['digest'].replace(':', '/')}"


@contextmanager
def _opened(tar: tarfile.TarFile, name: str) -> Iterator[IO[bytes]]:
    file = tar.extractfile(name)
    assert file is not None, name
    with file:
        yield file


def _json(tar: tarfile.TarFile, name: str) -> Any:
    with _opened(tar, name) as file:
        return json.load(file)
