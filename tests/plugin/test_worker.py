from __future__ import annotations

from typing import Any

import pytest

from bkrules.plugin import Backend, Tls


def test_a_backend_without_tls_needs_no_flags() -> None:
    assert Backend("unix:///run/x", "native").buildctl == ("buildctl",)


def test_the_flags_of_buildctl() -> None:
    tls = Tls(cacert="/c/ca.pem", cert="/c/cert.pem", key="/c/key.pem", servername="buildkitd")

    assert Backend("tcp://127.0.0.1:1", "native", tls=tls).buildctl == (
        *("buildctl", "--tlscacert=/c/ca.pem", "--tlscert=/c/cert.pem"),
        *("--tlskey=/c/key.pem", "--tlsservername=buildkitd"),
    )
    assert Tls(cacert="/c/ca.pem").flags == ("--tlscacert=/c/ca.pem",)


@pytest.mark.parametrize("fields", [{"cert": "/c/cert.pem"}, {"key": "/c/key.pem"}])
def test_a_certificate_needs_its_key(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="together"):
        Tls(**fields)
