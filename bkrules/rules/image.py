"""`image` and `estargz_image`: images made from pinned bytes, and their lazily pullable form."""

from __future__ import annotations

from typing import Any

from bkrules.analysis.cell_inputs import Limits, sandbox_inputs, usable
from bkrules.analysis.context import Context
from bkrules.model.action import Artifact, Output, Source, Text
from bkrules.model.parameters import EstargzImage, Image
from bkrules.model.providers import BinaryInfo, ImageInfo, WorkerInfo
from bkrules.model.reference import Reference
from bkrules.model.rule import Attr, Rule
from bkrules.plugin.ask import WorkerFault
from bkrules.plugin.host import goarch
from bkrules.rules import pulled_image
from bkrules.rules.image_paths import problems
from bkrules.rules.pulled_image import LAYOUT

_BY_PATH = ("files", "symlinks", "hardlinks", "noise", "directories", "devices", "modes", "owners", "xattrs")
"""The attributes that map paths in the image."""


def _analyze_image(context: Context) -> tuple[object, ...]:
    if context.attribute("reference") or context.attribute("archive"):
        return pulled_image.analyze(context)
    for name in ("digest", "platform"):
        if context.attribute(name):
            raise context.error("bad-attribute", f"{name!r} goes with 'reference' alone", name)
    _check_paths(context)
    inputs: dict[str, Artifact] = {}
    for number, (_, label) in enumerate(sorted(context.attribute("files").items())):
        inputs[f"files/{number}"] = _file(context, label)
    if context.attribute("base"):
        inputs["base"] = context.provider("base", context.attribute("base"), ImageInfo, "an image").layout
    names: dict[str, Any] = {name: context.attribute(name) for name in _BY_PATH}
    names |= {name: tuple(context.attribute(name)) for name in ("cmd", "entrypoint", "env", "whiteouts", "opaque")}
    names["labels"] = _labels(context)
    spec = Image(**names | {"architecture": goarch(), "files": tuple(sorted(names["files"]))})
    action = context.declare("Image", spec, inputs, [LAYOUT], folders=[LAYOUT])
    return (ImageInfo(context.output(action, LAYOUT)),)


def _file(context: Context, label: object) -> Output | Source:
    from bkrules.model.label import Label

    assert isinstance(label, Label)
    if context.workspace.target(label) is None:
        return context.source("files", label)
    file = context.provider("files", label, BinaryInfo, "a file or a binary").file
    if not isinstance(file, Output):
        raise context.error(
            "wrong-kind", f"{label} comes from this machine; an image is made of pinned bytes only", "files"
        )
    return file


def _labels(context: Context) -> dict[str, str]:
    """Return the labels of an image. Raises LoadError for a value that is no text."""
    labels: dict[str, Any] = context.attribute("labels")
    for name, value in labels.items():
        if not isinstance(value, str):
            raise context.error("bad-attribute", f"the label {name!r} must be a string, but is {value!r}", "labels")
    return labels


def _check_paths(context: Context) -> None:
    """Raise LoadError for an invalid path or value, and for two paths in one place."""
    made = {name: context.attribute(name) for name in _BY_PATH}
    made |= {name: dict.fromkeys(context.attribute(name)) for name in ("whiteouts", "opaque")}
    for reason, attribute, problem in problems(made):
        raise context.error(reason, problem, attribute)
    for attribute in ("whiteouts", "opaque"):
        if made[attribute] and not context.attribute("base"):
            raise context.error("bad-attribute", f"{attribute!r} needs a 'base', from which it removes", attribute)


IMAGE = Rule(
    "image",
    "An image: one gzip layer, or a base and one more layer, whose bytes depend on no clock and no machine. Or the image of a "
    "registry or an archive. An image with no paths adds no layer.",
    {
        "base": Attr("label", "An image to add a layer to."),
        "files": Attr("label_dict", "Files by their paths in the image, without the leading '/'.", default={}),
        "symlinks": Attr("dict", "Symbolic links: path to target.", default={}),
        "hardlinks": Attr("dict", "Hard links: path to the path of a file of this image's own layer.", default={}),
        "noise": Attr(
            "dict", "Files of incompressible bytes: path to size. The bytes follow from the path.", default={}
        ),
        "directories": Attr("dict", "Directories, empty or not: path to mode, as in {'tmp': '1777'}.", default={}),
        "devices": Attr(
            "dict", "Devices and named pipes: path to 'c MAJOR MINOR', 'b MAJOR MINOR' or 'p'.", default={}
        ),
        "whiteouts": Attr("strings", "Files and directories of the base that the image lacks.", default=()),
        "opaque": Attr("strings", "Directories in which nothing of the base shows.", default=()),
        "modes": Attr("dict", "Modes of files and devices, as in {'bin/su': '4755'}.", default={}),
        "owners": Attr("dict", "Owners, as in {'home/user': '1000:1000'}; 0:0 for all others.", default={}),
        "xattrs": Attr(
            "dict",
            "Extended attributes, as in {'data': {'user.note': 'text'}}; a value in base64 begins with '0s'.",
            default={},
        ),
        "cmd": Attr("strings", "The command that a container runs.", default=()),
        "entrypoint": Attr(
            "strings", "The words before the command. Of a frontend, BuildKit runs the entrypoint alone.", default=()
        ),
        "env": Attr("strings", "Environment variables, 'NAME=value'.", default=()),
        "labels": Attr("dict", "Labels, in addition to those of the base: name to text.", default={}),
        **pulled_image.ATTRIBUTES,
    },
    _analyze_image,
)


def _analyze_estargz(context: Context) -> tuple[object, ...]:
    image = context.provider("image", context.attribute("image"), ImageInfo, "an image")
    worker = context.provider("worker", context.attribute("worker"), WorkerInfo, "a worker")
    source = Reference("docker.io", "library/source", "latest")
    try:
        parts = sandbox_inputs(context, worker, {source: image.layout}, Limits())
    except WorkerFault as fault:
        return (ImageInfo(usable(context, worker, fault)),)
    parts.inputs["src/Dockerfile"] = Text(f"FROM {source}\n".encode())
    exporter = "type=oci,dest=/out/image.tar,compression=estargz,force-compression=true,oci-mediatypes=true"
    command = (
        *("buildctl", "build", "--progress=plain", "--frontend=dockerfile.v0"),
        *("--local", "context=/src", "--local", "dockerfile=/src"),
        *("--opt", "build-arg:SOURCE_DATE_EPOCH=0", "--output", exporter),
    )
    action = context.declare(
        "EstargzImage",
        EstargzImage(**vars(parts.parameters), commands=(command,)),
        parts.inputs,
        [LAYOUT],
        environment=parts.environment,
        platform=parts.platform,
        timeout=300,
        folders=[LAYOUT],
    )
    return (ImageInfo(context.output(action, LAYOUT)),)


ESTARGZ_IMAGE = Rule(
    "estargz_image",
    "An image converted to eStargz by BuildKit's own exporter, on a worker of this workspace.",
    {
        "image": Attr("label", "The image to convert.", required=True),
        "worker": Attr("label", "The worker whose buildkitd converts it.", default=":oci"),
    },
    _analyze_estargz,
)
