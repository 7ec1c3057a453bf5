"""The result of a build as a cell saw it: the root file system, the configuration, the layers, and the steps.

A cell writes it as JSON, and another process reads it: bk, which compares the results of several cells or updates a file of
expectations. A time of a file is no part of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from bkrules.model.wire import Wire, text_of
from bkrules.testing.pytest_text import OWN_TEST

TEST = OWN_TEST
"""The test of a cell, below the root of its tests."""
FILE = "seen.json"
"""The name of the document among the outputs of a cell."""
REQUEST = ".bk/build.json"
"""The request of a cell, next to its test."""
CONTEXT, DOCKERFILE = "context", "dockerfile"
"""The folders below the root of a cell's tests for the context and for the Dockerfile."""
CHOICES = ("build_args", "target", "platform")
"""The keys of an axis value that change the build."""
PATHS = {
    "presence": "presence",
    "kind": "types",
    "mode": "modes",
    "owner": "owners",
    "content": "contents",
    "link": "link targets",
    "device": "device numbers",
    "xattrs": "extended attributes",
}
"""The facts about each path, and their plural."""
CONFIG, LAYERS, DIGEST, FAILURE = "config", "layers", "digest", "failure"
WHATS = (*PATHS, CONFIG, LAYERS, DIGEST, FAILURE)
"""The facts in which results can differ."""
RECORDS = "records"
"""The name, among a target's extra attributes, of the file that gets what is recorded: no build file can set it."""
MOST = 256 << 20
"""The limit of bytes of the document."""
FAILURE_MARK = "failed to solve"
"""The words of buildctl for a build that failed; a daemon that cannot be reached has others."""


@dataclass(frozen=True)
class Entry(Wire):
    """A path of a root file system. `mode` has octal digits, `owner` is `UID:GID`, `device` is `MAJOR:MINOR`.

    `kind` is file, directory, symlink, device or fifo. `link` is the target of a symbolic link, or the path that a hard link
    shares its bytes with. Values of `xattrs` are text, or `0x` and hexadecimal digits.
    """

    kind: str
    mode: str
    owner: str
    size: int = 0
    sha256: str = ""
    link: str = ""
    device: str = ""
    xattrs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Step(Wire):
    """An instruction of the second build of the same Dockerfile, without FROM, and whether it came from BuildKit's cache."""

    name: str
    cached: bool


@dataclass(frozen=True)
class Seen(Wire):
    """The result of one build in a cell.

    `failure` is the last line of a build that failed, with nothing else. `rootfs` has paths that begin with `/`, and `contents`
    the texts of the files that were asked for. `config` is the image's configuration without its layers, which are `layers`, as
    digests of their uncompressed bytes. `unknown` is why these and `digest` are empty. `steps` is empty unless they were asked for.
    """

    failure: str = ""
    rootfs: Mapping[str, Entry] = field(default_factory=dict)
    contents: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, object] = field(default_factory=dict)
    layers: tuple[str, ...] = ()
    digest: str = ""
    unknown: str = ""
    steps: tuple[Step, ...] = ()

    @property
    def text(self) -> str:
        """The document as canonical JSON."""
        return text_of(self)

    @property
    def settings(self) -> Mapping[str, object]:
        """The part of the configuration that a container gets: `Env`, `Labels`, `Entrypoint` and so on."""
        found = self.config.get("config")
        return found if isinstance(found, dict) else {}


def read_seen(data: bytes) -> Seen:
    """Return the result in a document. Raises ValueError for a document that is malformed."""
    try:
        return Seen.parse(json.loads(data))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


@dataclass(frozen=True)
class BuildRequest(Wire):
    """The build of a cell: what Dockerfile, how, and what is expected of it.

    `contents` are the paths whose texts are kept. `twice`: the build runs a second time for its cached steps. `records`: no
    expectation can fail, and neither can the build.
    """

    filename: str
    expect: Mapping[str, object] = field(default_factory=dict)
    target: str = ""
    platform: str = ""
    build_args: Mapping[str, str] = field(default_factory=dict)
    frontend: str = ""
    contents: tuple[str, ...] = ()
    twice: bool = False
    records: bool = False
