"""`debian_package`: files of a Debian package, by its version and digest."""

from __future__ import annotations

import os
import re

from bkrules.analysis.context import Context
from bkrules.model.parameters import FetchDeb
from bkrules.model.providers import BinaryInfo, FilesInfo, PackageInfo
from bkrules.model.rule import Attr, Rule
from bkrules.rules.pins import pin_of_platform

_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_VERSION = re.compile(r"[0-9][A-Za-z0-9.+:~-]*")


def _analyze(context: Context) -> tuple[object, ...]:
    package, version = context.attribute("package") or context.label.name, context.attribute("version")
    for attribute, pattern, text in (("package", _NAME, package), ("version", _VERSION, version)):
        if not pattern.fullmatch(text):
            raise context.error(
                "bad-attribute",
                f"{text!r} cannot be the {attribute} of a Debian package",
                attribute,
                "`apt-cache policy NAME` prints the versions of a package",
            )
    hint = f"take it from `apt-get download {package}={version}` and sha256sum"
    pin = pin_of_platform(context, hint)
    files: list[str] = context.attribute("files")
    if not files:
        raise context.error("bad-attribute", "'files' names no file", "files")
    for path in files:
        if path != os.path.normpath(path) or path.startswith(("/", "..")) or path == "." or files.count(path) > 1:
            raise context.error(
                "bad-path",
                f"{path!r} cannot be a file of a package",
                "files",
                "name each once, without the leading '/', as in 'bin/busybox'",
            )
    action = context.declare("FetchDeb", FetchDeb(package, version, pin), {}, files)
    made = {path: context.output(action, path) for path in files}
    below = FilesInfo({f"{context.label.package}/{path}".lstrip("/"): file for path, file in made.items()})
    binary = [BinaryInfo(made[files[0]])] if len(files) == 1 else []
    return (below, PackageInfo(made), *binary)


DEBIAN_PACKAGE = Rule(
    "debian_package",
    "Files of a Debian package, which apt fetches from the sources that this machine has. Nothing is installed.",
    {
        "package": Attr("string", "The name of the package; by default the name of the target."),
        "version": Attr("string", "Its version, as in '1:1.35.0-4+deb12u1+b1'.", required=True),
        "sha256": Attr("dict", "The SHA-256 of the .deb by platform, as in {'linux-x86_64': '...'}.", required=True),
        "files": Attr(
            "strings", "The files to take, by their paths in the package, as in 'bin/busybox'.", required=True
        ),
    },
    _analyze,
)
