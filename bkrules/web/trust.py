"""The certificate authorities that bk trusts."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable

from bkrules.web.errors import Unreachable


def trust(authorities: str | None = None, client: tuple[str, str] | None = None) -> Callable[[], ssl.SSLContext]:
    """Return a function that makes a TLS context, with the authorities of a file or folder, or without one the public ones.

    `client` are the files of the client's certificate and of its key. The function raises Unreachable when a file
    cannot be read.
    """

    def make() -> ssl.SSLContext:
        place = authorities or public_authorities()
        try:
            is_folder = os.path.isdir(place)
            context = ssl.create_default_context(
                capath=place if is_folder else None, cafile=None if is_folder else place
            )
        except (OSError, ValueError) as error:
            raise Unreachable(f"the authorities {place} cannot be read: {error}") from error
        if client is not None:
            certificate, key = client
            try:
                context.load_cert_chain(certificate, key, password=_no_password)
            except (OSError, ValueError) as error:
                what = f"the client's certificate {certificate} with the key {key} cannot be used: {error}"
                raise Unreachable(what) from error
        return context

    return make


def public_authorities() -> str:
    """Return the file of the public authorities, in PEM."""
    import certifi

    return certifi.where()


def _no_password() -> str:
    """Refuse an encrypted key, for which OpenSSL would ask on the terminal."""
    raise ValueError("the key is encrypted")
