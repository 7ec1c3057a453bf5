"""The runners of PullImage and ImportImage: images from registries and archives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, suppress
from pathlib import Path

from bkrules.cache import atomic
from bkrules.cache.cas import Cas
from bkrules.errors import ActionFailed, MachineLacks
from bkrules.execution import doing
from bkrules.execution.context import RunContext
from bkrules.execution.result import Outcome
from bkrules.images import layout
from bkrules.images.archive import unpack
from bkrules.images.digests import ImageDigest
from bkrules.images.protocol import Place
from bkrules.model.action import Action, FileNode, Node
from bkrules.model.digest import Digest
from bkrules.model.parameters import PullImage, parameters_of
from bkrules.model.reference import parse_reference
from bkrules.model.status import Status
from bkrules.rules.pulled_image import LAYOUT


class LayoutPlace(Place):
    """A layout whose blobs come from the cache if possible."""

    def __init__(self, folder: Path, cas: Cas) -> None:
        self._folder, self._cas = folder, cas

    def has(self, digest: ImageDigest, size: int) -> bool:
        path = self._path(digest)
        stored = Digest(digest.hash, size)
        if not path.exists() and self._cas.intact(stored):
            atomic.place(self._cas.path(stored), path)
        return path.exists()

    def put(self, digest: ImageDigest, size: int, chunks: Callable[[], Iterable[bytes]]) -> None:
        atomic.write_chunks(str(self._path(digest)), chunks(), 0o644)

    def _path(self, digest: ImageDigest) -> Path:
        return self._folder / "blobs" / digest.path


def pull_image(action: Action, inputs: Mapping[str, Node], context: RunContext) -> Outcome:
    """Pull an image by its digest.

    Raises ActionFailed, with the tag's current digest when the registry lost the pinned one, and MachineLacks when it
    cannot be reached.
    """
    from bkrules.images.copy import Copier
    from bkrules.images.registry_client import NO_ANSWER, RegistryClient

    spec = parameters_of(action, PullImage)
    place = inputs["reference"]
    assert isinstance(place, FileNode)
    reference = parse_reference(Path(place.path).read_text())
    folder = context.scratch(action) / LAYOUT
    with closing(RegistryClient(reference.host)) as client, Copier() as copier:
        doing.tell(action.id, lambda: doing.bytes_text(copier.copied, copier.total))
        try:
            manifest = copier.image(
                client, reference.repository, ImageDigest(spec.digest), LayoutPlace(folder, context.cas), spec.platform
            )
        except ActionFailed as error:
            problem, hint = f"{action.label}: {error.message}", error.hint
            if error.reason == NO_ANSWER:
                raise MachineLacks("no-network", problem, hint=hint) from error
            with suppress(ActionFailed):  # the registry may only have the current image of the tag
                now = client.digest(reference.repository, reference.tag)
                if now != spec.digest:
                    problem += f"; {reference} is {now} now, and {spec.digest} is pinned"
                    hint = "to take the new one:  bk mirror sync --update"
            raise ActionFailed(error.reason, problem, hint=hint) from error
    layout.write_index(folder, manifest.descriptor)
    return Outcome(Status.PASSED, {LAYOUT: str(folder)})


def import_image(action: Action, inputs: Mapping[str, Node], context: RunContext) -> Outcome:
    """Unpack an archive of one image. Raises ActionFailed for a malformed archive."""
    folder = context.scratch(action) / LAYOUT
    archive = inputs["archive"]
    assert isinstance(archive, FileNode)
    unpacked(action, Path(archive.path), folder)
    return Outcome(Status.PASSED, {LAYOUT: str(folder)})


def unpacked(action: Action, archive: Path, folder: Path) -> None:
    """Unpack the archive of an action's image to the layout `folder`. Raises ActionFailed for a malformed archive."""
    try:
        unpack(archive, folder)
    except ActionFailed as error:
        problem = f"{action.label}: the archive holds no image: {error.message}"
        raise ActionFailed("bad-archive", problem) from error
