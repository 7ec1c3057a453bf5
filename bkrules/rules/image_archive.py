"""`image_archive`: an image as one file, for programs that take no registry."""

from __future__ import annotations

from bkrules.analysis.context import Context
from bkrules.model.providers import BinaryInfo, FilesInfo, ImageInfo
from bkrules.model.rule import Attr, Rule


def _analyze(context: Context) -> tuple[object, ...]:
    image = context.provider("image", context.attribute("image"), ImageInfo, "an image").layout
    name = f"{context.label.name}.tar"
    action = context.declare("ImageArchive", [], {"image": image}, [name])
    made = context.output(action, name)
    return (FilesInfo({f"{context.label.package}/{name}".lstrip("/"): made}), BinaryInfo(made))


IMAGE_ARCHIVE = Rule(
    "image_archive",
    "An image as one OCI archive, NAME.tar, for programs that read images from files.",
    {"image": Attr("label", "The image.", required=True)},
    _analyze,
)
