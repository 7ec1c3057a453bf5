"""The messages of the Remote Workers API, v1test2, by which a worker gets actions of a scheduler, as `reapi.SCHEMA` lists them.

Source: the protocol buffer definitions of google.devtools.remoteworkers.v1test2.
"""

from __future__ import annotations

SERVICE = "/google.devtools.remoteworkers.v1test2.Bots/"
OK, TERMINATING = 1, 4
"""The statuses of a session: the worker takes leases, or takes none, since it ends."""
ACTIVE, COMPLETED = 2, 4
"""The states of a lease, as a worker sends them."""

BOTS: dict[str, dict[int, tuple[str, str]]] = {
    "WorkerProperty": {1: ("key", "s"), 2: ("value", "s")},
    "Device": {1: ("handle", "s"), 2: ("properties", "*WorkerProperty")},
    "Worker": {1: ("devices", "*Device"), 2: ("properties", "*WorkerProperty"), 3: ("configs", "*WorkerProperty")},
    "Lease": {
        2: ("state", "i"),
        3: ("status", "Status"),
        7: ("id", "s"),
        8: ("payload", "Any"),
        9: ("result", "Any"),
    },
    "BotSession": {
        1: ("name", "s"),
        2: ("bot_id", "s"),
        3: ("status", "i"),
        4: ("worker", "Worker"),
        5: ("leases", "*Lease"),
        7: ("version", "s"),
    },
    "CreateBotSessionRequest": {1: ("parent", "s"), 2: ("bot_session", "BotSession")},
    "UpdateBotSessionRequest": {1: ("name", "s"), 2: ("bot_session", "BotSession")},
}
