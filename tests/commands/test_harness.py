"""The environment variables of BuildKit's harness become options."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pytest

from bkrules.build.selection import Selection
from bkrules.build.worker_overrides import NONE, WorkerOverrides
from bkrules.commands.harness import add_overrides, add_selection, overrides_of, selection_of
from bkrules.errors import UsageError
from bkrules.incremental import dependencies


@pytest.fixture(autouse=True)
def doubts() -> Iterator[list[str]]:
    """What was noted as a reason not to keep the answer."""
    with dependencies.separate() as noted:
        yield noted.doubts


def selection(*words: str, **environment: str) -> Selection:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_selection(parser)
    return selection_of(parser.parse_args(words), environment)


def test_without_anything_all_cells_run(doubts: list[str]) -> None:
    assert selection() == Selection()
    assert selection().words == ()
    assert doubts == []


@pytest.mark.parametrize("value", ["0", "", "true", "2"])
def test_only_the_value_1_counts(value: str) -> None:
    assert selection(SKIP_INTEGRATION_TESTS=value, BUILDKIT_WORKER_RANDOM=value) == Selection()


def test_integration_tests_can_be_skipped() -> None:
    assert selection(SKIP_INTEGRATION_TESTS="1").skip == "skipping integration tests, since SKIP_INTEGRATION_TESTS=1"


def test_a_worker_by_chance_has_a_seed_that_can_be_given_back(doubts: list[str]) -> None:
    first, second = (selection(BUILDKIT_WORKER_RANDOM="1").random_worker for _ in range(2))
    assert first is not None
    assert first != second
    assert len(doubts) == 2
    assert selection("--random_worker=any").random_worker not in (None, first, second)
    doubts.clear()
    assert selection(f"--random_worker={first}", BUILDKIT_WORKER_RANDOM="1").random_worker == first
    assert doubts == []


@pytest.mark.parametrize("option", ["--shard=2/5", "--slice=2-5", "--shard=2-5"])
def test_a_shard(option: str) -> None:
    assert selection(option).shard == (2, 5)
    assert selection(option).words == ("--shard=2/5",)


@pytest.mark.parametrize("option", ["--shard=0/5", "--shard=6/5", "--shard=1", "--shard=a/b", "--shard=1/2/3"])
def test_what_is_no_shard(option: str) -> None:
    with pytest.raises(argparse.ArgumentError, match="must be I/N with 1 <= I <= N"):
        selection(option)


def test_filters_are_kept_in_their_order() -> None:
    assert selection("--test_filter=b", "--test_filter=-a").filters == ("b", "-a")


def test_a_seed_is_a_number() -> None:
    with pytest.raises(argparse.ArgumentError, match="must be a whole number or 'any'"):
        selection("--random_worker=oci")


def overrides(*words: str, **environment: str) -> WorkerOverrides:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_overrides(parser)
    return overrides_of(parser.parse_args(words), environment)


def test_without_anything_no_worker_is_changed() -> None:
    assert overrides() == NONE


def test_each_variable_is_an_option(tmp_path: Path) -> None:
    pairs = {
        "BUILDKIT_TEST_ENABLE_FEATURES": ("cdi,info", "--enable_features=cdi, info"),
        "BUILDKIT_TEST_DISABLE_FEATURES": ("sbom", "--disable-features=sbom"),
        "BUILDKIT_INTEGRATION_SNAPSHOTTER": ("native", "--extra_snapshotter=native"),
        "BUILDKIT_INTEGRATION_CONTAINERD_EXTRA": (f"old={tmp_path}", f"--extra_binaries=old={tmp_path}"),
        "BUILDKIT_INTEGRATION_ROOTLESS_IDPAIR": ("0:0", "--rootless_user=root"),
    }
    for name, (value, option) in pairs.items():
        assert overrides(**{name: value}) == overrides(option) != NONE
        assert overrides(option, **{name: value}) == overrides(option)
    everything = overrides(**{name: value for name, (value, _) in pairs.items()})
    assert everything == WorkerOverrides(
        frozenset({"cdi", "info"}), frozenset({"sbom"}), "native", (("old", str(tmp_path)),), "root"
    )


def test_a_binary_of_buildkitd_is_that_of_the_option(tmp_path: Path) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    for path in (own, other):
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)

    assert overrides(TEST_BUILDKITD_BINARY=str(own)).tools == (("buildkitd", str(own)),)
    assert overrides(f"--override_tool=runc={own}", TEST_BUILDKITD_BINARY=str(other)).tools == (
        ("buildkitd", str(other)),
        ("runc", str(own)),
    )
    assert overrides(f"--override_tool=buildkitd={other}", TEST_BUILDKITD_BINARY=str(own)).tools == (
        ("buildkitd", str(other)),
    )
    assert overrides("--override_tool=buildkitd=", TEST_BUILDKITD_BINARY=str(own)) == NONE


def test_several_folders_of_binaries(tmp_path: Path) -> None:
    found = overrides(BUILDKIT_INTEGRATION_CONTAINERD_EXTRA=f"a={tmp_path},b={tmp_path}").binaries
    assert found == (("a", str(tmp_path)), ("b", str(tmp_path)))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("BUILDKIT_TEST_ENABLE_FEATURES", "cdi,cdx", "there is no feature 'cdx'"),
        ("BUILDKIT_INTEGRATION_CONTAINERD_EXTRA", "old", "must be ID=DIR"),
        ("BUILDKIT_INTEGRATION_CONTAINERD_EXTRA", "old=/nonexistent", "must be ID=DIR"),
        ("BUILDKIT_INTEGRATION_ROOTLESS_IDPAIR", "1000", "must be UID:GID"),
        ("TEST_BUILDKITD_BINARY", "/nonexistent", "buildkitd: /nonexistent does not exist"),
        ("BUILDKIT_INTEGRATION_ROOTLESS_IDPAIR", "1000:0", "no user but root may have the group 0"),
        ("BUILDKIT_INTEGRATION_ROOTLESS_IDPAIR", "4123456789:1", "this machine has no user with the id 4123456789"),
    ],
)
def test_what_a_variable_cannot_mean_is_an_error_of_usage(name: str, value: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        overrides(**{name: value})
    assert message in caught.value.message
