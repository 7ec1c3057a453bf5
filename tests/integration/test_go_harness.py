"""BuildKit's own tests, unmodified and on their own harness in Go, on a mirror that bk filled, without a network."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import enclosure
import pytest
from rounds import rounds
from spaces import Space, place_tools

from bkrules.model import digest

PACKAGE = "//targets/tools/buildkit-tests"
TESTS = (
    "TestBasicInlineCacheImportExport",
    "TestBasicRegistryCacheImportExport",
    "TestBuildExportZstd",
    "TestCachedMounts",
    "TestCopyFromEmptyImage",
    "TestOCIExporter",
    "TestPushByDigest",
    "TestRelativeMountpoint",
    "TestRelativeWorkDir",
    "TestSourceDateEpochTarExporter",
    "TestZstdLocalCacheExport",
)
WORKERS = ("containerd", "oci")
FOLDER = {"BUILDKIT_REGISTRY_MIRROR_DIR": str(enclosure.SHARED)}
RESULT = re.compile(r"^ {4}--- (\w+): TestIntegration/(\w+)/worker=(\w+) ", re.MULTILINE)
Harness = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def original(repository: Path, built: Path) -> Space:
    """This repository, in which the binary of the tests is built."""
    here = Space(repository, built)
    done = here.bk("build", f"{PACKAGE}:client_test")
    assert done.returncode == 0, done.stdout + done.stderr
    return here


@pytest.fixture
def mirror(original: Space, tmp_path: Path) -> Path:
    """A folder that `bk mirror sync` filled for the tests."""
    folder = tmp_path / "mirror"
    done = original.bk("mirror", "sync", "--to", str(folder), f"{PACKAGE}:mirror")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def harness(original: Space, mirror: Path, tmp_path: Path) -> Harness:
    """Runs tests where there is no network but the loopback, with bk's tools on PATH; how they ended, and what they said."""
    assets = tmp_path / "assets"
    place_tools(original.root, assets / "bin", f"{PACKAGE.removeprefix('//')}/client_test/client_test")
    binary = str(enclosure.ASSETS / "bin/client_test")
    path = f"{enclosure.ASSETS}/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # those of the machine have iptables and mount

    def run(environment: dict[str, str], *tests: str) -> dict[str, Any]:
        chosen = f"^TestIntegration$/^({'|'.join(tests)})$/^worker=({'|'.join(WORKERS)})$"
        arguments = [binary, "-test.v", "-test.parallel=2", "-test.timeout=120s", f"-test.run={chosen}"]
        variables = {"PATH": path, "HOME": "/root", "TMPDIR": "/tmp", **environment}
        return enclosure.run(lambda: enclosure.run_command(arguments, variables), assets, shared=mirror)

    return run


def files(folder: Path) -> dict[str, digest.Digest]:
    """The files of a folder."""
    return {str(path.relative_to(folder)): digest.of_file(path) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.soak
def test_every_matrix_of_the_suite_is_analysed(original: Space) -> None:
    """Those that run by name only, too: nothing else looks at some of them."""
    done = original.bk("aquery", f"{PACKAGE}:all")
    assert done.returncode == 0, done.stderr
    assert "client_signed_matrix" in done.stdout


@pytest.mark.soak
def test_buildkits_own_tests_pass_on_a_mirror_of_bk(harness: Harness, original: Space, mirror: Path) -> None:
    before = files(mirror / "data")

    done = harness(FOLDER, *TESTS)

    assert done["status"] == 0, done["output"]
    results = {(test, worker): status for status, test, worker in RESULT.findall(done["output"])}
    assert results == {(test, worker): "PASS" for test in TESTS for worker in WORKERS}
    assert "to local mirror" not in done["output"]  # the harness says so of each image that it copies
    assert files(mirror / "data") == before
    again = original.bk("mirror", "sync", "--to", str(mirror), f"{PACKAGE}:mirror")
    assert again.returncode == 0, again.stdout + again.stderr
    assert (mirror / "config.yaml").exists()  # the harness's own, of the registry that it ran on the folder


@pytest.mark.soak
@pytest.mark.parametrize("missing", ["library/busybox", "tonistiigi/test", "the variable"])
def test_they_fail_without_the_images(harness: Harness, mirror: Path, missing: str) -> None:
    """A control: nothing else on this machine serves what the mirror lacks, not even an image that the test does not use."""
    environment = FOLDER
    if missing == "the variable":
        environment = {}
    else:
        shutil.rmtree(mirror / "data/docker/registry/v2/repositories" / missing)

    done = harness(environment, "TestRelativeWorkDir")

    assert done["status"] != 0
    assert "--- PASS" not in done["output"]
    assert "dial tcp: lookup registry-1.docker.io" in done["output"]


# Of those that need no more of an image than the stand-in has: two of three. Each third of these is run, all with BK_ROUNDS=3.
NAMES = """
TestAttestationBundle TestBuildExportScratch TestBuildHTTPSource TestBuildHTTPSourceEtagScope TestBuildHTTPSourceHostTokenSecret
TestCacheExportCacheDeletedContent TestCachedMounts TestCallInfo TestDiffLowerScratchDeletes TestDiffSelf TestBuildExportZstd
TestExportAnnotations TestExportAttestationsDefaultOCIArtifact TestExportAttestationsOCIArtifact
TestExportLocalModeCopyKeepsStaleDestinationFiles TestExportLocalModeDeleteMultiPlatformKeepsAllPlatforms
TestExportLocalNoPlatformSplit TestExportLocalSource TestExportLocalSourceMultiPlatform TestExportLocalSourceNotFound
TestExportTarSource TestCacheExportIgnoreError TestFileOpInputSwap TestFileOpRmWildcard
TestFrontendImageNaming TestFrontendMetadataReturn TestFrontendVerifyPlatforms TestHTTPPruneAfterResolveMeta
TestHTTPResolveMultiBuild TestImageResolveAttestationChainLocal TestInvalidExporter
TestListenBuildHistoryExcludesSoftDeletedRecords TestLocalSourceDiffer TestLocalSourceWithHardlinksFilter
TestMultipleExporters TestOCIExporter TestOCIIndexMediatype TestOCILayoutSource TestPassthroughOp TestProxyEnv
TestPullWithLayerLimit TestPushByDigest TestReadonlyRootFS TestRegistryEmptyCacheExport TestRelativeMountpoint
TestRelativeWorkDir TestResolveAndHosts TestSBOMScanSingleRef TestSecretEnv TestSessionExporterFinalizeExport
TestSourceDateEpochLayerTimestamps TestSourceDateEpochReset TestSourceDateEpochTarExporter TestSourceMap
TestSourceMetaPolicySession TestSourcePolicySession TestSourcePolicySessionDenyMessages TestValidateInvalidConfig
TestValidatePlatformsEmpty TestWhiteoutParentDir
"""
SAMPLE = NAMES.split()[:: max(1, 3 // rounds(1))]


@pytest.mark.soak
def test_buildkits_own_tests_are_cells(original: Space) -> None:
    """On three kinds of workers, of which one is rootless; and once they passed, none runs again."""
    label = f"{PACKAGE}:client_matrix"
    chosen = f"--test_filter=TestIntegration/^({'|'.join(SAMPLE)})$/^worker=(oci|containerd|rootless)$"

    done = original.bk("test", label, chosen, "--flaky_test_attempts=2")

    assert len(SAMPLE) >= 20
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((original.root / "bk-out" / PACKAGE.strip("/") / "client_matrix/report.json").read_text())
    statuses = Counter(cell["status"] for cell in report["cells"])
    assert statuses["passed"] + statuses["flaky"] + statuses["skipped"] == 3 * len(SAMPLE)
    assert statuses["skipped"] < len(SAMPLE) // 3
    kept = sum(cell["status"] in ("passed", "skipped") and cell["key"] is not None for cell in report["cells"])
    again = original.bk("test", label, chosen)
    assert f"({kept} cached, {3 * len(SAMPLE) - kept} not)" in again.stdout
