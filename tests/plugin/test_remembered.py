from __future__ import annotations

import os
from pathlib import Path

import pytest

from bkrules.plugin.installed import Plugins
from bkrules.plugin.remembered import NAME, remember, remembered


def test_a_worker_is_remembered_when_its_plugin_is_gone(tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    remember(state, Plugins({}, {"oci": "bk-worker-oci 1", "narrow": "bk-worker-narrow 2"}))
    found = remember(state, Plugins({}, {"oci": "bk-worker-oci 3"}))
    assert found.before == {"oci": "bk-worker-oci 3", "narrow": "bk-worker-narrow 2"}
    assert found.distributions == {"oci": "bk-worker-oci 3"}
    assert os.listdir(state) == [NAME]


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b"{", b'{"a": 1}', b"null", b"[" * 100_000])
def test_a_damaged_record_is_none(data: bytes, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(data)
    assert set(remembered(str(tmp_path)).values()) <= {"1"}


def test_where_nothing_can_be_written_nothing_is_remembered(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    assert remember(str(tmp_path / "state"), Plugins({}, {"a": "b 1"})).before == {"a": "b 1"}
    os.mkfifo(tmp_path / NAME)
    assert remembered(str(tmp_path)) == {}
