"""Features of BuildKit, by the names in BuildKit's own harness."""

from __future__ import annotations

from collections.abc import Iterable

from bkrules.errors import did_you_mean

FEATURES = frozenset(
    {
        *("cache_export", "cache_import", "multi_cache_export"),
        *("cache_backend_azblob", "cache_backend_gha", "cache_backend_inline"),
        *("cache_backend_local", "cache_backend_registry", "cache_backend_s3"),
        *("image_exporter", "oci_exporter", "oci_layout", "direct_push", "content_check"),
        *("frontend_outline", "frontend_targets", "info", "merge_diff", "multi_platform"),
        *("provenance", "sbom", "security_mode", "source_date_epoch", "cni_network", "cdi"),
    }
)
"""The names, as in `util/testutil/workers/features.go` of BuildKit v0.34.2."""


class UnknownFeature(ValueError):
    """A name that is not one of FEATURES."""


def known(names: Iterable[str]) -> frozenset[str]:
    """Return the names as a set. Raises UnknownFeature for an unknown one."""
    found = frozenset(names)
    for name in sorted(found - FEATURES):
        raise UnknownFeature(f"there is no feature {name!r}; {did_you_mean(name, FEATURES, 'features')}")
    return found
