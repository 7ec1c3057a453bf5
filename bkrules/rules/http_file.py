"""`http_file`: a file from the web, by its digest."""

from __future__ import annotations

import re

from bkrules.analysis.context import Context
from bkrules.model.parameters import FetchFile
from bkrules.model.providers import BinaryInfo, FilesInfo
from bkrules.model.rule import Attr, Rule

_SCHEMES = ("http://", "https://", "file://")


def _analyze(context: Context) -> tuple[object, ...]:
    urls, pin = context.attribute("urls"), context.attribute("sha256")
    if not urls:
        raise context.error("bad-attribute", "'urls' names no place", "urls")
    for url in urls:
        if not url.startswith(_SCHEMES):
            raise context.error("bad-url", f"{url!r} is not a URL", "urls", f"it must start with {', '.join(_SCHEMES)}")
    if not re.fullmatch("[0-9a-f]{64}", pin):
        raise context.error("bad-pin", f"'sha256' must be 64 hexadecimal digits, but was {pin!r}", "sha256")
    name = context.attribute("downloaded_file_path") or urls[0].rpartition("/")[2] or context.label.name
    if not re.fullmatch(r"[\w.+~@-]+", name) or name in (".", ".."):
        raise context.error(
            "bad-path", f"{name!r} cannot be the file's name", "downloaded_file_path", "name the file by this attribute"
        )
    executable = context.attribute("executable")
    spec = FetchFile(tuple(urls), pin, executable)
    file = context.output(context.declare("FetchFile", spec, {}, [name]), name)
    files = FilesInfo({f"{context.label.package}/{name}".lstrip("/"): file})
    return (files, BinaryInfo(file)) if executable else (files,)


HTTP_FILE = Rule(
    "http_file",
    "A file from the web. Its bytes are those of `sha256`, or the build fails.",
    {
        "urls": Attr("strings", "URLs of the file; bk tries one after the other.", required=True),
        "sha256": Attr("string", "The SHA-256 of the file.", required=True),
        "executable": Attr("bool", "Whether it is a binary, which `tools` may name.", default=False),
        "downloaded_file_path": Attr("string", "Its name; by default the last part of the first URL."),
    },
    _analyze,
)
