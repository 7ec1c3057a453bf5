from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bkrules.errors import LoadError
from bkrules.images import lock
from bkrules.images.digests import ImageDigest
from bkrules.images.lock import Pin

ONE = ImageDigest.of_hash("1" * 64)
NAME = "a.example/x:1"


def test_pins_are_read_as_they_were_written(tmp_path: Path) -> None:
    pins = {NAME: Pin(ONE, {"linux/amd64": ONE})}
    lock.write(f"{tmp_path}/bk.lock", pins)
    assert lock.read(f"{tmp_path}/bk.lock") == pins


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "<html>",
        "[" * 100_000,
        "\udcff",
        '{"version": 1}',
        '{"version": 1, "images": null}',
        '{"version": 1, "images": []}',
        '{"version": 1, "images": {"x": null}}',
        '{"version": 1, "images": {"x": {"digest": null, "platforms": {}}}}',
        '{"version": 1, "images": {"x": {"digest": 7, "platforms": {}}}}',
        f'{{"version": 1, "images": {{"x": {{"digest": "{ONE}"}}}}}}',
        f'{{"version": 1, "images": {{"x": {{"digest": "{ONE}", "platforms": [["a", "b"]]}}}}}}',
        '{"version": 1, "images": {"x": {"digest": "sha256:../../x", "platforms": {}}}}',
        f'{{"version": 1, "images": {{"x": {{"digest": "{ONE}", "platforms": {{"a": "latest"}}}}}}}}',
        f'{{"version": 1, "images": {{"x": {{"digest": "sha512:{"0" * 128}", "platforms": {{}}}}}}}}',
        '{"version": 1, "version": 1, "images": {}}',
    ],
)
def test_a_lock_that_is_none_of_bk_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "bk.lock").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(LoadError, match=r"bk\.lock cannot be read") as caught:
        lock.read(f"{tmp_path}/bk.lock")
    assert caught.value.where == "bk.lock:1"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_what_is_no_file_is_named_without_waiting_for_it(make: Callable[[str], None], tmp_path: Path) -> None:
    make(f"{tmp_path}/bk.lock")
    with pytest.raises(LoadError, match=r"bk\.lock cannot be read"):
        lock.read(f"{tmp_path}/bk.lock")
