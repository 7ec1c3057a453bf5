"""The errors of requests. Each is an OSError, and no text of an error contains a secret."""

from __future__ import annotations


class HttpError(OSError):
    """No usable answer."""


class Unreachable(HttpError):
    """The server cannot be reached: it refuses, it has no address, its proxy refuses, or TLS fails."""


class Untrusted(Unreachable):
    """The certificate of the server is not signed by an authority that this machine trusts."""


class TooSlow(HttpError):
    """The server was too slow for the limits of the request."""


class BadAnswer(HttpError):
    """The connection ended before the answer did, or the answer is not HTTP, or it is too large."""


class TooLarge(BadAnswer):
    """The body has more bytes than its reader accepts."""


def reason(error: BaseException) -> str:
    """Return the innermost cause of an error in a few words, without any URL."""
    if isinstance(error, HttpError):
        return str(error)
    import ssl

    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or 'unknown reason'}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    known = {
        "IncompleteRead": "the answer was cut short",
        "RemoteDisconnected": "the server closed the connection",
        "BadStatusLine": "the answer is not HTTP",
        "TimeoutError": "no byte in time",
    }
    return known.get(type(error).__name__, f"{type(error).__name__}: {error}"[:200])
