"""Versions of Go modules, and their order."""

from __future__ import annotations

import random

import pytest

from bkrules.model.semver import version_of

ORDERED = [
    *("v0.0.1", "v0.9.0", "v0.10.0", "v1.0.0-alpha", "v1.0.0-alpha.1", "v1.0.0-alpha.beta", "v1.0.0-beta"),
    *("v1.0.0-beta.2", "v1.0.0-beta.11", "v1.0.0-rc.1", "v1.0.0", "v2.0.0+incompatible", "v10.0.0"),
]


def test_the_order_is_that_of_semantic_versions() -> None:
    versions = [version for text in ORDERED if (version := version_of(text)) is not None]
    shuffled = random.Random(7).sample(versions, len(versions))
    assert [version.text for version in sorted(shuffled)] == ORDERED


@pytest.mark.parametrize("text", ["", "1.2.3", "v1", "v1.2", "v01.2.3", "v1.2.3-", "latest", "v1.2.3 ", "v1.2.3-a_b"])
def test_other_texts_are_no_versions(text: str) -> None:
    assert version_of(text) is None
