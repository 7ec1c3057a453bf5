"""The messages of the Remote Execution API's Execution service, and what they contain, as `reapi.SCHEMA` lists them."""

from __future__ import annotations

EXECUTION: dict[str, dict[int, tuple[str, str]]] = {
    "Any": {1: ("type_url", "s"), 2: ("value", "y")},
    "Status": {1: ("code", "i"), 2: ("message", "s"), 3: ("details", "*Any")},
    "ExecutionCapabilities": {1: ("digest_function", "i"), 2: ("exec_enabled", "b"), 5: ("digest_functions", "*i")},
    "ExecuteRequest": {1: ("instance_name", "s"), 3: ("skip_cache_lookup", "b"), 6: ("action_digest", "Digest")},
    "WaitExecutionRequest": {1: ("name", "s")},
    "CancelOperationRequest": {1: ("name", "s")},
    "Operation": {
        1: ("name", "s"),
        2: ("metadata", "Any"),
        3: ("done", "b"),
        4: ("error", "Status"),
        5: ("response", "Any"),
    },
    "ExecuteOperationMetadata": {1: ("stage", "i"), 2: ("action_digest", "Digest")},
    "ExecuteResponse": {
        1: ("result", "ActionResult"),
        2: ("cached_result", "b"),
        3: ("status", "Status"),
        5: ("message", "s"),
    },
}
