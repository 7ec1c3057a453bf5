"""Copies of many images at once, from registries or layouts to a folder or a registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from typing import TYPE_CHECKING

from bkrules.images.destination import Destination, check_places
from bkrules.images.protocol import Source, referrers_tag
from bkrules.model.reference import ALL, Reference

if TYPE_CHECKING:
    from bkrules.images.copy import Copier

_AT_ONCE = 4
Watch = Callable[["Copier"], AbstractContextManager[object]]
"""Returns a context as long as which a copier copies."""


def copy_references(
    references: Sequence[Reference],
    destination: Destination,
    platform: str,
    *,
    referrers: bool = False,
    watch: Watch = nullcontext,
) -> tuple[dict[Reference, str], int]:
    """Copy images that the destination lacks or has outdated. Return all digests, and the number of copied bytes.

    Raises ActionFailed, or UsageError for two references with the same place.
    """
    check_places(references)
    digests = _unmoved(references, destination) if platform == ALL and not referrers else {}
    missing = [reference for reference in references if reference not in digests]
    if not missing:
        return digests, 0
    from bkrules.images.registry_client import RegistryClient

    with ExitStack() as stack:
        hosts = {reference.host for reference in missing}
        clients = {host: stack.enter_context(closing(RegistryClient(host))) for host in hosts}
        sources = {one: (clients[one.host], one.repository, one.tag) for one in missing}
        copied, size = copy_all(sources, destination, platform, referrers=referrers, watch=watch)
    return {**digests, **copied}, size


def _unmoved(references: Sequence[Reference], destination: Destination) -> dict[Reference, str]:
    """Return the references whose images at the destination are current, with their digests."""
    from bkrules.images.resolve_tags import resolve_tags

    there = {reference: digest for reference in references if (digest := destination.tagged(reference))}
    return {reference: digest for reference, digest in resolve_tags(there).items() if digest == there[reference]}


def copy_all(
    sources: Mapping[Reference, tuple[Source, str, str]],
    destination: Destination,
    platform: str = ALL,
    *,
    referrers: bool = False,
    watch: Watch = nullcontext,
) -> tuple[dict[Reference, str], int]:
    """Copy images, each a tag or digest in a repository of a source. Return their digests, and the number of copied bytes.

    With `referrers`, their referrers are copied too, and the referrers of these. Raises ActionFailed, or UsageError for
    two references with the same place.
    """
    check_places(sources)
    from concurrent.futures import ThreadPoolExecutor

    from bkrules.images.copy import Copier

    with Copier() as copier, watch(copier), ThreadPoolExecutor(_AT_ONCE) as pool:

        def one(reference: Reference) -> str:
            source, repository, name = sources[reference]
            place = destination.place(reference)
            manifest = copier.image(source, repository, name, place, platform)
            if referrers:
                for digest, index in copier.referrers(source, repository, manifest, place):
                    destination.tag(Reference(reference.host, reference.repository, referrers_tag(digest)), index)
            if destination.tagged(reference) != manifest.digest:
                destination.tag(reference, manifest)
            return manifest.digest

        return dict(zip(sources, pool.map(one, sources), strict=True)), copier.copied
