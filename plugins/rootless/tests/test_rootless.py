from __future__ import annotations

import dataclasses

from bk_worker_rootless import RootlessWorker

from bkrules.plugin import Mirror
from bkrules.plugin.host import probe

HOST = dataclasses.replace(probe("/nowhere/"), user_namespaces=1000, mapped_ids=4294967295)


def test_a_range_is_made_in_each_cell_by_default() -> None:
    ranges = RootlessWorker().configuration(Mirror("127.0.0.1:5000", ()))["ranges.toml"]

    assert ranges == {"subuid": "100000:65536", "subgid": "100000:65536"}
    assert RootlessWorker().preflight(HOST) == ()


def test_a_kernel_without_user_namespaces() -> None:
    lacks = RootlessWorker().preflight(dataclasses.replace(HOST, user_namespaces=0))

    assert [lack.what for lack in lacks] == ["no user namespaces"]


def test_too_few_ids_to_map() -> None:
    lacks = RootlessWorker().preflight(dataclasses.replace(HOST, mapped_ids=65536))

    assert [lack.what for lack in lacks] == ["no subuid range"]


def test_a_user_without_ranges_is_named_with_what_to_do() -> None:
    lacks = RootlessWorker(user="nobody-has-this").preflight(HOST)

    assert [lack.what for lack in lacks] == [
        f"no range for 'nobody-has-this' in /etc/{name}" for name in ("subuid", "subgid")
    ]
    assert all("usermod --add-subuids 100000-165535" in lack.remedy for lack in lacks)
