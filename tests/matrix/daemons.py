"""Functions with which axis values change the daemons' configuration."""

import socket
from collections.abc import Iterator
from typing import Any


def labelled(configuration: dict[str, dict[str, Any]]) -> Iterator[None]:
    """A label on the worker, and a server next to it."""
    for worker in configuration["buildkitd.toml"]["worker"].values():
        worker["labels"] = {"changed-by": "function"}
    with socket.create_server(("127.0.0.1", 7000)):
        yield
    print("released")
