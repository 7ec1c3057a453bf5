"""The certificate authorities that bk trusts."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable

from bkrules.web.errors import Unreachable


def trust(authorities: str | None = None) -> Callable[[], ssl.SSLContext]:
    """Return a function that makes a TLS context, with the authorities of a file or folder, or without one the public ones.

    The context raises Unreachable when the file cannot be read.
    """

    def make() -> ssl.SSLContext:
        import certifi

        place = authorities or certifi.where()
        try:
            if os.path.isdir(place):
                return ssl.create_default_context(capath=place)
            return ssl.create_default_context(cafile=place)
        except (OSError, ValueError) as error:
            raise Unreachable(f"the authorities {place} cannot be read: {error}") from error

    return make
