"""The leaves of tests on a harness, by worker."""

from __future__ import annotations

from bkrules.analysis.test_programs import by_worker


def test_a_leaf_of_one_worker_is_only_there() -> None:
    names = [
        "TestPlain",
        "TestI/TestA/worker=oci/mode=min",
        "TestI/TestA/worker=containerd/mode=min",
        "TestI/TestB/worker=containerd",
    ]

    assert by_worker(names) == {
        "TestPlain": frozenset(),
        "TestI/TestA/worker=@worker@/mode=min": frozenset(),
        "TestI/TestB/worker=@worker@": {"oci"},
    }
    assert list(by_worker(names[::-1])) == [
        "TestI/TestB/worker=@worker@",
        "TestI/TestA/worker=@worker@/mode=min",
        "TestPlain",
    ]
    assert by_worker([]) == {}
