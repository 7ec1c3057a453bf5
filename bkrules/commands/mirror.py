"""`bk mirror`: pins of references, and mirrors that outlive a build."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence, Set
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import TYPE_CHECKING

from bkrules import errors
from bkrules.commands.build_arguments import add_execution, options_of
from bkrules.commands.own_files import add_modules
from bkrules.commands.parser import command, nothing
from bkrules.errors import BkError, UsageError
from bkrules.images.destination import REGISTRY, address, check_places
from bkrules.model.label import Label, parse_label
from bkrules.model.reference import ALL, Reference, parse_reference

if TYPE_CHECKING:
    from bkrules.build.analysis import Analysis
    from bkrules.commands.parser import Commands
    from bkrules.images.copy import Copier
    from bkrules.images.lock import Pin
    from bkrules.images.storage import Tree
    from bkrules.loading.workspace import Workspace
    from bkrules.model.action import DirectoryNode

FOLDER = "BUILDKIT_REGISTRY_MIRROR_DIR"
_REGISTRY = "//:registry"


def add(commands: Commands) -> None:
    """Add the commands of this module to the parser."""
    parser = command(commands, "mirror", _mirror, "pin images, and fill, check or serve a mirror: sync, verify, serve")
    parser.add_argument(
        "what",
        choices=("sync", "verify", "serve"),
        help="pin and copy what is missing; compare pins with registries and blobs with digests; run a registry",
    )
    parser.add_argument(
        "sources",
        nargs="*",
        metavar="PATTERN-or-REFERENCE",
        help="image_mirror targets (default: //...), or for sync references such as host/repository:tag",
    )
    parser.add_argument(
        "--to",
        default=os.environ.get(FOLDER, ""),
        metavar="DIR",
        help=f"the mirror's folder, as BuildKit's harness uses it (default: ${FOLDER}); for sync also a registry, "
        f"{REGISTRY}HOST[/PREFIX]",
    )
    parser.add_argument("--update", action="store_true", help="for sync: pin the current digests of tags")
    parser.add_argument("--platform", default=ALL, help="for references: linux/amd64, or all (default: %(default)s)")
    parser.add_argument(
        "--referrers",
        action="store_true",
        help="for references: also copy referrers of the images, such as signatures",
    )
    parser.add_argument("--port", type=int, default=5000, help="for serve: on 127.0.0.1 (default: %(default)s)")
    add_execution(parser)
    add_modules(parser)


def _mirror(arguments: argparse.Namespace) -> int:
    references = [text for text in arguments.sources if not text.startswith(("//", ":", "@", "-//", "-@", "..."))]
    if references and (arguments.what != "sync" or len(references) < len(arguments.sources)):
        raise UsageError("usage", f"bk mirror {arguments.what}: {references[0]!r} is not a target pattern")
    if address(arguments.to) and arguments.what != "sync":
        raise UsageError("usage", f"bk mirror {arguments.what}: --to must be a folder, but is {arguments.to}")
    if arguments.referrers and not references:
        raise UsageError("usage", "bk mirror: --referrers goes with references alone, as in host/repository:tag")
    if references:
        return _copy([_reference(text) for text in references], arguments)
    return {"sync": _sync, "verify": _verify, "serve": _serve}[arguments.what](arguments)


def _reference(text: str) -> Reference:
    try:
        return parse_reference(text)
    except ValueError as error:
        raise UsageError("usage", f"bk mirror: {error}") from error


def _copy(references: Sequence[Reference], arguments: argparse.Namespace) -> int:
    """Copy references, without a workspace."""
    from bkrules.images.copy_all import copy_references
    from bkrules.images.destination import opened

    if not arguments.to:
        raise UsageError("usage", "bk mirror sync: --to says where references are copied to")
    with opened(arguments.to) as destination:
        digests, copied = copy_references(
            references, destination, arguments.platform, referrers=arguments.referrers, watch=_shown
        )
    for reference in references:
        print(f"{reference} {digests[reference]}")
    print(f"{len(references)} images, {copied >> 20} MiB copied to {arguments.to}")
    return errors.SUCCESS


def _shown(copier: Copier) -> AbstractContextManager[None]:
    """Show how many bytes have been copied, as long as the context lasts."""
    from bkrules.execution.doing import bytes_text
    from bkrules.report.progress import shown

    return shown(sys.stderr, lambda: f"bk: copies images: {bytes_text(copier.copied, copier.total)}")


def _sync(arguments: argparse.Namespace) -> int:
    """Pin references without a pin, build the mirrors, and put them in a folder when one is named."""
    from bkrules.build.analysis import open_workspace
    from bkrules.images import lock

    workspace = open_workspace(".")
    path = f"{workspace.root}/{lock.NAME}"
    before = lock.read(path)
    wanted = {reference: where for _, reference, digest, where in _pulled(workspace) if not digest}
    pins = {name: pin for name, pin in before.items() if name in wanted}
    moved = []
    for name in sorted(wanted):
        try:
            now = _look(_reference(name))
        except BkError as error:
            error.where = error.where or wanted[name]
            raise
        if name in before and before[name].digest != now.digest and not arguments.update:
            moved.append(f"{name} was {before[name].digest} and is {now.digest}")
        elif pins.get(name) != now:
            print(f"pinned {name} {now.digest}")
            pins[name] = now
    if moved:
        raise BkError("moved", "\n".join(moved), hint="to pin the current digests:  bk mirror sync --update")
    if pins != before:
        lock.write(path, pins)
    if not arguments.to:
        return errors.SUCCESS
    from bkrules.images.copy_all import copy_all
    from bkrules.images.destination import Folder, opened
    from bkrules.images.layout_source import LayoutSource
    from bkrules.images.storage import write_tree

    images = _build(arguments)[1]
    with opened(arguments.to) as destination:
        if isinstance(destination, Folder):
            write_tree(Path(arguments.to, "data"), images, link=False)
        else:
            sources = {name: (LayoutSource(layout), "", "") for name, layout in images.items()}
            copy_all(sources, destination, watch=_shown)
    print(f"{len(images)} images in {arguments.to}")
    return errors.SUCCESS


def _verify(arguments: argparse.Namespace) -> int:
    """Compare pins with registries, and the blobs of a mirror's folder with their digests."""
    from bkrules.build.analysis import open_workspace
    from bkrules.images import lock
    from bkrules.images.destination import locked

    workspace = open_workspace(".")
    pins = lock.read(f"{workspace.root}/{lock.NAME}")
    problems = []
    pulled = [
        (label, name, digest or (pins[name].digest if name in pins else ""))
        for label, name, digest, _ in _pulled(workspace)
    ]
    for label, name, digest in pulled:
        try:
            now = _look(_reference(name)).digest
        except BkError as error:
            problems.append(f"{label}: {error.message}")
            continue
        if not digest:
            problems.append(f"{label}: {name} has no pin; it is {now}")
        elif now != digest:
            problems.append(f"{label}: {name} was {digest} and is {now}")
    blobs = 0
    if arguments.to:
        with locked(arguments.to) as tree:
            for repository, tag in tree.references():
                checked, broken = _check(tree, Reference("mirror", repository, tag))
                blobs += checked
                problems += broken
    for problem in problems:
        print(problem)
    print(f"{len(pulled)} references, {blobs} blobs, {len(problems)} problems")
    return errors.BUILD_FAILED if problems else errors.SUCCESS


def _check(tree: Tree, reference: Reference) -> tuple[int, list[str]]:
    """Return the number of blobs of an image in a mirror, and their faults."""
    import hashlib

    name = f"{reference.repository}:{reference.tag}"
    problems = []
    top = tree.tagged(reference)
    if top is None:
        return 0, [f"{name}: its link is not a digest"]
    try:
        digests = [digest for digest, _ in tree.blobs(top)]
    except BkError as error:
        return 0, [f"{name}: {error.message}"]
    for digest in digests:
        if not os.path.isfile(tree.path(digest)):
            problems.append(f"{name}: blob {digest} is {'no file' if os.path.exists(tree.path(digest)) else 'missing'}")
            continue
        with open(tree.path(digest), "rb") as file:
            actual = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        if actual != digest:
            problems.append(f"{name}: blob {digest} has the digest {actual}")
    return len(digests), problems


def _serve(arguments: argparse.Namespace) -> int:
    """Run a registry on a mirror until it is interrupted: on the mirror in a folder, or on the targets' images."""
    import subprocess
    import tempfile

    from bkrules.images.storage import write_tree

    tool, images = _build(arguments, _REGISTRY)
    with tempfile.TemporaryDirectory(prefix="bk-mirror-") as folder:
        data = Path(arguments.to, "data") if arguments.to else Path(folder, "data")
        if not arguments.to:
            write_tree(data, images)
        configuration = {
            "version": "0.1",
            "log": {"level": "warn"},
            "storage": {
                "filesystem": {"rootdirectory": str(data.absolute())},
                "maintenance": {"readonly": {"enabled": True}},
            },
            "http": {"addr": f"127.0.0.1:{arguments.port}"},
        }
        file = Path(folder, "config.json")
        file.write_text(json.dumps(configuration))
        print(f"serving {data} at 127.0.0.1:{arguments.port}; Ctrl-C ends it", flush=True)
        environment = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
        with subprocess.Popen([tool, "serve", str(file)], env=environment) as process:
            try:
                return errors.SUCCESS if process.wait() == 0 else errors.BUILD_FAILED
            except KeyboardInterrupt:
                process.terminate()
                return errors.SUCCESS


def _build(arguments: argparse.Namespace, *more: str) -> tuple[str, dict[Reference, DirectoryNode]]:
    """Build the mirrors, and `more`. Return the path of the file of `more`, and the images. Raises BkError on a failure."""
    from bkrules.build.analysis import analyze_patterns
    from bkrules.build.execute import execute
    from bkrules.model.action import DirectoryNode, FileNode
    from bkrules.model.providers import MirrorInfo
    from bkrules.report.summary import summarize

    patterns = [*(arguments.sources or ["//..."]), *more]
    analysis = analyze_patterns(".", patterns)
    wanted = {
        analysis.workspace.actual(parse_label(text)) for text in more
    }  # those of a module, in which the tools may be
    analysis = _mirrors(analysis, wanted)
    result = execute(analysis, options_of(arguments))
    if result.exit_code:
        print(summarize(result, analysis.out))
        raise BkError("not-built", "the mirror's images could not be built", hint="the failures are above")
    made = {built.action.id: built for built in result.results}
    images: dict[Reference, DirectoryNode] = {}
    owners: dict[Reference, object] = {}
    for label in analysis.targets.wanted:
        for provider in analysis.actions.providers[label]:
            if isinstance(provider, MirrorInfo):
                for reference, output in provider.images.items():
                    node = made[output.producer].outputs[output.path]
                    assert isinstance(node, DirectoryNode)
                    if images.setdefault(reference, node).digest != node.digest:
                        problem = f"{owners[reference]} and {label} have two images for {reference}"
                        raise UsageError("one-place", problem, hint="select one of the two targets")
                    owners.setdefault(reference, label)
    check_places(images)
    files = [node for built in result.results if built.action.label in wanted for node in built.outputs.values()]
    return next((node.path for node in files if isinstance(node, FileNode)), ""), images


def _mirrors(analysis: Analysis, more: Set[Label]) -> Analysis:
    """Return the same build with only the image_mirrors of the targets, and `more`. Raises BkError when there are none."""
    from dataclasses import replace

    kinds = {target.label: target.rule.name for target in analysis.targets.targets}
    wanted = tuple(label for label in analysis.targets.wanted if kinds[label] == "image_mirror" or label in more)
    if not any(kinds[label] == "image_mirror" for label in wanted):
        raise nothing("there is no image_mirror among the targets", "select one, as in //targets:mirror")
    return replace(analysis, targets=replace(analysis.targets, wanted=wanted))


def _pulled(workspace: Workspace) -> Iterator[tuple[str, str, str, str]]:
    """Yield the images of the workspace that come from registries: label, reference, the digest in the target, and its place."""
    for target in workspace.every():
        if target.rule.name == "image" and target.attributes["reference"]:
            where = target.location.of("reference")
            yield str(target.label), target.attributes["reference"], target.attributes["digest"] or "", where


def _look(reference: Reference) -> Pin:
    """Return the current state of a reference. Raises ActionFailed."""
    from bkrules.images.copy import platforms
    from bkrules.images.documents import Kind
    from bkrules.images.lock import Pin
    from bkrules.images.registry_client import RegistryClient

    with closing(RegistryClient(reference.host)) as client:
        manifest = client.manifest(reference.repository, reference.tag)
    return Pin(manifest.digest, platforms(manifest) if manifest.kind is Kind.INDEX else {})
