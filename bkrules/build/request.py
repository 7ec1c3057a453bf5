"""The options of a build, separate from the build, since every command imports this module."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from bkrules.cache.remote_options import TOPLEVEL, ExecutorOptions, RemoteOptions

TEST_OUTPUTS = ("summary", "errors", "all", "streamed")
LOGGED = ("all", "streamed")
"""The values of --test_output that print the logs of tests that pass."""


@dataclass(frozen=True)
class Options:
    """The options of a build.

    `resources` are sizes of pools, `test_timeouts` seconds by size of test, and `profile` is the file for the profile,
    if any. `downloads` is one of `DOWNLOADS`.
    """

    jobs: int
    disk_cache: str
    keep_going: bool = False
    test_keep_going: bool = True
    resources: tuple[tuple[str, float], ...] = ()
    test_timeouts: Mapping[str, int] = field(default_factory=dict)
    profile: str = ""
    remote: RemoteOptions | None = None
    executor: ExecutorOptions | None = None
    downloads: str = TOPLEVEL
    cache_test_results: str = "auto"
    test_attempts: int | None = None
    test_output: str = "errors"
    color: str = "auto"


def default_cache() -> str:
    """Return the folder of the disk cache when no option names it, by the XDG specification; relative paths are ignored."""
    caches = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(caches):
        return f"{caches}/bk"
    home = os.environ.get("HOME", "")
    if not os.path.isabs(home):
        import pwd

        try:
            home = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError:  # the user of a container may be missing in /etc/passwd
            home = f"/var/tmp/bk-{os.getuid()}"
    return f"{home}/.cache/bk"
