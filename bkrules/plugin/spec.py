"""The hooks of bk, as pluggy knows them."""

from __future__ import annotations

from collections.abc import Callable

import pluggy

from bkrules.plugin.worker import Worker

GROUP = "bk"
API = 1
"""The version of the hooks. A module that needs at least another one says so: `BK_API = 2`."""
hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)

Register = Callable[[type[Worker]], None]


@hookspec
def bk_register_workers(register: Register) -> None:
    """Tell bk which workers a plugin has.

    Called once in each process of bk that needs a worker, for every installed distribution with an entry point in the
    group `bk`, in the order of the distributions' names. Call `register` once for each worker class. The return value is
    not used. A plugin that raises, ends the process, takes longer than 30 s, leaves a process running or registers what
    is no worker has no workers in this run; a build that needs one of them fails, with an error that names the plugin.
    A name that two plugins register is unusable in the same way.
    """
