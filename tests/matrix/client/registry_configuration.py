"""Functions with which axis values say where images are pulled from.

The snapshotter daemon has a separate configuration, `stargz.toml`, on workers that run one, and inherits nothing of buildkitd's.
"""

from __future__ import annotations

from typing import Any

DEAD = "127.0.0.1:9"
"""Nobody listens there."""
INSECURE = "cell:5000"
"""The mirror by a name for which clients speak TLS unless they are told not to."""
Configuration = dict[str, dict[str, Any]]


def dead_mirror_first(configuration: Configuration) -> None:
    """Each registry has two mirrors."""
    for mirrors in _mirrors(configuration):
        mirrors.insert(0, DEAD if isinstance(mirrors[0], str) else {"host": DEAD, "insecure": True})
    configuration["buildkitd.toml"]["registry"][DEAD] = {"http": True}


def dead_mirror_alone(configuration: Configuration) -> None:
    """Each registry has one mirror."""
    dead_mirror_first(configuration)
    for mirrors in _mirrors(configuration):
        del mirrors[1:]


def _mirrors(configuration: Configuration) -> list[list[Any]]:
    """The lists of mirrors, of buildkitd and of the snapshotter daemon."""
    hosts = [
        *configuration["buildkitd.toml"]["registry"].values(),
        *configuration.get("stargz.toml", {}).get("resolver", {}).get("host", {}).values(),
    ]
    return [host["mirrors"] for host in hosts if "mirrors" in host]


def insecure(configuration: Configuration) -> None:
    """A registry without TLS."""
    insecure_for_buildkitd(configuration)
    if "stargz.toml" in configuration:
        mirrors = [{"host": INSECURE, "insecure": True}]
        configuration["stargz.toml"]["resolver"]["host"][INSECURE] = {"mirrors": mirrors}


def insecure_for_buildkitd(configuration: Configuration) -> None:
    """A registry without TLS, of which the snapshotter daemon is told nothing."""
    configuration["buildkitd.toml"]["registry"][INSECURE] = {"http": True}
