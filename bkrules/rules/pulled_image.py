"""An existing `image`: in a registry, by its digest, or in an archive."""

from __future__ import annotations

import re

from bkrules.analysis.context import Context
from bkrules.images import lock
from bkrules.images.digests import ImageDigest
from bkrules.incremental.dependencies import current
from bkrules.model.action import Artifact, Text
from bkrules.model.label import Label, root_of
from bkrules.model.parameters import PullImage
from bkrules.model.providers import FilesInfo, ImageInfo
from bkrules.model.reference import ALL, parse_reference
from bkrules.model.rule import Attr
from bkrules.plugin.host import goarch

LAYOUT = "layout"
MADE = (
    *("base", "cmd", "entrypoint", "env", "files", "noise", "symlinks", "hardlinks", "directories", "devices"),
    *("whiteouts", "opaque", "modes", "owners", "xattrs", "labels"),
)
"""The attributes of an image that bk makes."""
ATTRIBUTES = {
    "reference": Attr("string", "The reference of an image in a registry, 'host/repository:tag'."),
    "digest": Attr("string", "The digest of that image, 'sha256:...'; by default the one in `bk.lock`."),
    "platform": Attr(
        "string", f"Which image of an index: 'linux/arm64', or '{ALL}' for the whole index; by default this machine's."
    ),
    "archive": Attr("label", "An OCI or docker archive of one image: a file, an http_file or a genrule."),
}


def analyze(context: Context) -> tuple[object, ...]:
    """Return the providers of an image with `reference` or `archive`. Raises LoadError."""
    reference, archive = context.attribute("reference"), context.attribute("archive")
    for name in MADE:
        if context.attribute(name):
            other = "reference" if reference else "archive"
            raise context.error("bad-attribute", f"{name!r} does not go with {other!r}", name)
    if archive is not None:
        if reference:
            raise context.error("bad-attribute", "'archive' does not go with 'reference'", "archive")
        action = context.declare("ImportImage", [], {"archive": _archive(context)}, [LAYOUT], folders=[LAYOUT])
        return (ImageInfo(context.output(action, LAYOUT)),)
    try:
        parse_reference(reference)
    except ValueError as error:
        raise context.error("bad-reference", f"'reference' {error}", "reference") from error
    digest = _digest(context, reference)
    # The key does not cover where the image is pulled from: the digest identifies it.
    place = Text(digest.encode(), shown=reference.encode())
    spec = PullImage(digest, _platform(context))
    action = context.declare("PullImage", spec, {"reference": place}, [LAYOUT], folders=[LAYOUT])
    return (ImageInfo(context.output(action, LAYOUT)),)


def _digest(context: Context, reference: str) -> ImageDigest:
    digest: str = context.attribute("digest")
    if not digest:
        file = Label(root_of(context.label.package), lock.NAME)
        pin = lock.read(current().note(context.workspace.place(file.path))).get(reference)
        if pin is None:
            hint = (
                f"`bk mirror sync` writes the digest that it has now to {lock.NAME}; or say it:  digest = 'sha256:...'"
            )
            raise context.error("unpinned", f"nothing says which digest {reference} has", "reference", hint)
        return pin.digest
    try:
        return ImageDigest(digest)
    except ValueError as error:
        raise context.error("bad-pin", f"'digest' {error}", "digest") from error


def _platform(context: Context) -> str:
    wanted: str = context.attribute("platform")
    if wanted and wanted != ALL and not re.fullmatch(r"[a-z0-9]+/[a-z0-9_]+(/[a-z0-9.]+)?", wanted):
        raise context.error(
            "bad-platform", f"{wanted!r} is no platform", "platform", f"as in 'linux/arm64', or '{ALL}'"
        )
    return wanted or f"linux/{goarch()}"


def _archive(context: Context) -> Artifact:
    label = context.attribute("archive")
    if context.workspace.target(label) is None:
        return context.source("archive", label)
    files = context.provider("archive", label, FilesInfo, "a file").files
    if len(files) != 1:
        raise context.error("wrong-kind", f"{label} has {len(files)} files; an archive is one", "archive")
    (file,) = files.values()
    return file
