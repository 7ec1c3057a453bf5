"""The hooks of bk, as pluggy knows them."""

from __future__ import annotations

from collections.abc import Callable

import pluggy

from bkrules.plugin.worker import Worker

GROUP = "bk"
hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)

Register = Callable[[type[Worker]], None]


@hookspec
def bk_register_workers(register: Register) -> None:
    """Tell bk which workers a plugin has.

    Called once in each run of bk that needs a worker, for every installed distribution with an entry point in the group
    `bk`, in the order of the distributions' names. Call `register` once for each worker class. The return value is not
    used. Raising, or registering a name that another plugin has, ends the run with an error that names the distribution.
    """
