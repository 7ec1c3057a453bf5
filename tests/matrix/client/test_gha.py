"""Build caches in the cache service of GitHub Actions, as in BuildKit's testBasicGhaCacheImportExport, without GitHub."""

from __future__ import annotations

import pytest
from builder import BUSYBOX, UNIQUE, Builder, exported, imported

from bkrules.testing.actions_cache import ActionsCache
from bkrules.testing.sandbox import CommandFailed

pytestmark = pytest.mark.requires("cache_export", "cache_import", "cache_backend_gha")


def test_cache_by_github_actions(build: Builder, actions_cache: ActionsCache) -> None:
    before = exported(build, actions_cache.cache())
    assert imported(build, actions_cache.cache())[0] == before


def test_scopes_and_branches_are_apart(build: Builder, actions_cache: ActionsCache) -> None:
    before = exported(build, actions_cache.cache(scope="one"))
    assert imported(build, actions_cache.cache(scope="two"))[0] != before
    assert imported(build, actions_cache.cache(scope="one", branch="refs/heads/other"))[0] != before
    assert imported(build, actions_cache.cache(scope="one"))[0] == before


def test_a_token_that_has_expired(build: Builder, actions_cache: ActionsCache) -> None:
    before = exported(build, actions_cache.cache())
    after, said = imported(build, actions_cache.cache(expires=1))
    assert "cache token expired at 1970-01-01" in said
    assert after != before


def test_a_url_that_opens_nothing(build: Builder, actions_cache: ActionsCache) -> None:
    """A failed import is reported and skipped; a failed export fails the build."""
    wrong = actions_cache.cache(url=f"{actions_cache.url}wrong/")
    assert "404" in imported(build, wrong)[1]
    with pytest.raises(CommandFailed, match=r"(?s)exporting to GitHub Actions Cache.*404"):
        build(BUSYBOX + UNIQUE, f"--export-cache={wrong},mode=max")
