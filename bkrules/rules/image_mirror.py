"""`image_mirror`: images by the references under which a registry serves them."""

from __future__ import annotations

from bkrules.analysis.context import Context
from bkrules.model.action import Output
from bkrules.model.providers import ImageInfo, MirrorInfo
from bkrules.model.reference import Reference, parse_reference
from bkrules.model.rule import Attr, Rule


def _analyze(context: Context) -> tuple[object, ...]:
    images: dict[Reference, Output] = {}
    places: dict[str, Reference] = {}
    for text, label in sorted(context.attribute("images").items()):
        try:
            reference = parse_reference(text)
        except ValueError as error:
            raise context.error("bad-reference", f"'images' {error}", "images") from error
        place = f"{reference.repository}:{reference.tag}"
        if place in places:
            raise context.error(
                "duplicate-name", f"{reference} and {places[place]} have the same place on a mirror", "images"
            )
        places[place] = reference
        images[reference] = context.provider("images", label, ImageInfo, "an image").layout
    return (MirrorInfo(images),)


IMAGE_MIRROR = Rule(
    "image_mirror",
    "A registry's content: images by full reference. Daemons reach it through their mirror configuration only.",
    {
        "images": Attr(
            "label_dict",
            "Full reference to image, as in {'docker.io/library/busybox:latest': ':busybox'}.",
            required=True,
        )
    },
    _analyze,
)
