"""How to build, as a command line says it. Apart from the build, since every command imports this."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bkrules.cache.remote_options import RemoteOptions

TEST_OUTPUTS = ("summary", "errors", "all", "streamed")


@dataclass(frozen=True)
class Options:
    """What the command line says about how to build. `resources` are sizes of pools, `test_timeouts` seconds by size of test, and
    `profile` is the file for a profile, if there is to be one.
    """

    jobs: int
    disk_cache: str
    keep_going: bool = False
    test_keep_going: bool = True
    resources: tuple[tuple[str, float], ...] = ()
    test_timeouts: Mapping[str, int] = field(default_factory=dict)
    profile: str = ""
    remote: RemoteOptions | None = None
    cache_test_results: str = "auto"
    test_attempts: int | None = None
    test_output: str = "errors"
