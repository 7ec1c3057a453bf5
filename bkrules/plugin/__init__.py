"""The interface for plugins: everything that a plugin imports.

A plugin is a distribution with an entry point in the group `bk`, whose module implements `bk_register_workers`.
"""

from __future__ import annotations

from bkrules.plugin import buildkitd, host, networks, snapshotters
from bkrules.plugin.cell import ProgramResult, RunningCell
from bkrules.plugin.daemon import Daemon, DaemonError, Daemons, DaemonSpec, User, listening
from bkrules.plugin.features import FEATURES
from bkrules.plugin.host import Host, Lack, subordinate_range
from bkrules.plugin.spec import Register, hookimpl
from bkrules.plugin.worker import Backend, Mirror, SettingsError, Tls, Worker, one_of, setting

__all__ = [
    "FEATURES",
    "Backend",
    "Daemon",
    "DaemonError",
    "DaemonSpec",
    "Daemons",
    "Host",
    "Lack",
    "Mirror",
    "ProgramResult",
    "Register",
    "RunningCell",
    "SettingsError",
    "Tls",
    "User",
    "Worker",
    "buildkitd",
    "hookimpl",
    "host",
    "listening",
    "networks",
    "one_of",
    "setting",
    "snapshotters",
    "subordinate_range",
]
