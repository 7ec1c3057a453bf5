"""A whole CI, simulated: the recipes' plan, their jobs and the merge in clones that share a cache and artifacts only."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bazel_remotes import starter
from schemas import REPORT, validate
from simulated_ci import Pipeline, SimulatedCi
from spaces import Space, copy_of_cache

from bkrules.build.ci_seconds import key_of
from bkrules.starter.files import CI

MATRIX = """from bkrules import image, image_mirror, test_matrix
image(name = "shared", noise = {"a": 1000})
image_mirror(name = "mirror", images = {"docker.io/library/shared:1": ":shared"})
test_matrix(
    name = "hello_matrix",
    tests = ["test_hello.py", "test_other.py"],
    workers = ["//targets:oci", "//targets:rootless"],
    mirror = ":mirror",
)
"""
TEST = "def test_{}(sandbox):\n    assert sandbox.worker == {}\n"
LABEL = "//hello:hello_matrix[test_{}/worker={}]"
CELLS = sorted(LABEL.format(test, worker) for test in ("one", "two", "three") for worker in ("oci", "rootless"))


@pytest.fixture
def repository_of_user(tools: Space) -> Space:
    """A repository with six cells of one matrix, whose mirror needs one image."""
    tools.write("hello/BUILD.py", MATRIX)
    tools.write("hello/test_hello.py", TEST.format("one", "sandbox.worker") + TEST.format("two", "sandbox.worker"))
    tools.write("hello/test_other.py", TEST.format("three", "sandbox.worker"))
    return tools


Sent = Callable[[], list[str]]


@pytest.fixture
def server(bazel_remote: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[str, Sent]]:
    """A bazel-remote: its address, and the keys of the results that it has been sent, each as often as it was sent.

    Its protocol is the parameter of the test, or HTTP.
    """
    with starter(bazel_remote, tmp_path, getattr(request, "param", "http")) as start:
        made = start()
        pattern = {"http": r"PUT 200 .*/ac/([0-9a-f]{64})", "grpc": r"GRPC AC PUT ([0-9a-f]{64}) OK"}[made.protocol]
        own = key_of("bk", "//hello:hello_matrix").hash  # how long cells took, which each merge sends

        def sent() -> list[str]:
            return [key for key in re.findall(pattern, (tmp_path / "server.log").read_text()) if key != own]

        yield made.url, sent


def is_whole(pipeline: Pipeline, cached: int) -> None:
    """The merge is green, and its report has each declared cell once."""
    assert [(job.name, job.printed) for job in pipeline.jobs if job.code] == []
    report = pipeline.report("hello/hello_matrix")
    validate(REPORT, report)
    assert [cell["label"] for cell in report["cells"]] == CELLS
    assert report["summary"] == {"passed": 6, "cached": cached, "total": 6}
    assert report["exit_code"] == 0
    assert pipeline.page == ("passed", 6)
    assert [job.page for job in pipeline.jobs if job.ran] == [
        ("passed", len(job.ran)) for job in pipeline.jobs if job.ran
    ]
    junit = (pipeline.merged / "test.xml").read_text()
    assert sorted(re.findall(r'<testcase [^>]*name="([^"]*)"', junit)) == sorted(
        label.partition("[")[2][:-1] for label in CELLS
    )


@pytest.mark.parametrize(
    ("ci", "server"), [*((ci, "http") for ci in sorted(CI)), ("github", "grpc")], indirect=["server"]
)
def test_three_changes(ci: str, repository_of_user: Space, server: tuple[str, Sent], tmp_path: Path) -> None:
    address, sent = server
    simulated = SimulatedCi(repository_of_user, tmp_path / "ci", address)

    first = simulated.run(ci)
    is_whole(first, 0)
    assert sorted(label for cells in first.ran for label in cells) == CELLS
    assert sorted(map(len, first.ran)) == [1, 1, 2, 2]
    assert len(sent()) == len(set(sent())) > len(CELLS)  # no cell, and no image, was made by two jobs
    assert "1 action: 1 ran" in first.jobs[0].printed  # the image that all jobs need

    repository_of_user.write("hello/test_other.py", TEST.format("three", "sandbox.worker or True"))
    second = simulated.run(ci)
    is_whole(second, 4)
    assert second.ran == [[LABEL.format("three", "oci")], [LABEL.format("three", "rootless")]]
    assert len(sent()) == len(set(sent()))

    repository_of_user.write("README.md", "Words that no test reads.\n")
    third = simulated.run(ci)
    is_whole(third, 6)
    assert third.ran == []
    if ci == "github":
        assert [job.name for job in third.jobs] == ["plan", "report"]
    else:
        assert sum("nothing to run: " in job.printed for job in third.jobs) == 4


@pytest.mark.parametrize("ci", sorted(CI))
def test_a_job_that_fails_and_one_that_never_reports(
    ci: str, repository_of_user: Space, server: tuple[str, Sent], tmp_path: Path
) -> None:
    simulated = SimulatedCi(repository_of_user, tmp_path / "ci", server[0])
    repository_of_user.write("hello/test_other.py", TEST.format("three", "'oci'"))
    failed = simulated.run(ci)
    assert sorted(job.code for job in failed.jobs if job.ran) == [0, 0, 0, 3]
    assert failed.last.code == 3
    assert failed.page == ("failed", 6)
    assert [job.page for job in failed.jobs if job.code == 3 and job.ran] == [("failed", 1)]
    summary = failed.report("hello/hello_matrix")["summary"]
    assert summary == {"failed": 1, "passed": 5, "cached": 0, "total": 6}

    repository_of_user.write("hello/test_other.py", TEST.format("three", "sandbox.worker or 1"))
    simulated.lost = frozenset([1])
    lost = simulated.run(ci)
    assert lost.last.code == 4
    assert "error: job 2 of 2 has no report: //hello:hello_matrix[test_three/worker=" in lost.last.printed
    report = lost.report("hello/hello_matrix")
    validate(REPORT, report)
    assert [cell["label"] for cell in report["cells"]] == CELLS
    assert [cell["reason"] for cell in report["cells"] if cell["status"] == "not run"] == [
        "job 2 of 2 has not reported it"
    ]
    assert report["summary"] == {"passed": 5, "not run": 1, "cached": 4, "total": 6}


class Clones:
    """Clones of a repository that share no cache: each job has an own disk cache, which begins with the tools alone."""

    def __init__(self, space: Space, folder: Path) -> None:
        self._space, self._folder = space, folder
        self._count = 0

    def job(self, name: str, *commands: str) -> Path:
        """Run commands of bk in a new clone, with the words `FOLDER` for the folder that all jobs share. Return the clone."""
        self._count += 1
        clone = self._folder / f"{self._count}-{name}"
        shutil.copytree(self._space.root, clone, symlinks=True, ignore=shutil.ignore_patterns("bk-out"))
        cache = copy_of_cache(self._space.cache, self._folder / f"{self._count}-cache")
        (clone / "bk-out").mkdir()
        if (self._folder / "plan.json").exists():
            shutil.copyfile(self._folder / "plan.json", clone / "bk-out/plan.json")
        for command in commands:
            words = [word.replace("FOLDER", str(self._folder)) for word in command.split()]
            disk = [] if words[0] == "test" else ["--disk_cache", str(cache)]
            done = Space(clone, cache).bk(*words, *disk)
            assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        shutil.rmtree(cache)
        return clone


def test_packs_alone(repository_of_user: Space, tmp_path: Path) -> None:
    """As the documentation says for a CI that only keeps files: two changes, and none."""
    shared = tmp_path / "shared"
    shared.mkdir()
    clones = Clones(repository_of_user, shared)
    target = "//hello:hello_matrix"
    kept: list[str] = []
    for changed, count, cached in (("one more", 6, 0), ("another", 2, 4), ("another", 0, 6)):
        repository_of_user.write("hello/test_other.py", TEST.format("three", f"sandbox.worker or {changed!r}"))
        (shared / "plan.json").unlink(missing_ok=True)
        plan = clones.job("plan", *kept, f"ci plan {target}", "ci tools", f"cache pack {target} --out=FOLDER/plan.pack")
        shutil.copyfile(plan / "bk-out/plan.json", shared / "plan.json")
        ran, packs, folders = [], ["FOLDER/plan.pack"], []
        for number in range(1, 1 + len(json.loads((shared / "plan.json").read_text())["jobs"])):
            own = f"FOLDER/{number}.pack"
            work = (f"test --plan_job={number} {target}", f"cache pack --plan_job={number} {target} --out={own}")
            clone = clones.job(f"job-{number}", "cache unpack FOLDER/plan.pack", *work)
            (path,) = clone.glob("bk-out/*/*/plan_*/report.json")
            ran += [cell["label"] for cell in json.loads(path.read_text())["cells"] if not cell["cached"]]
            packs.append(own)
            folders.append(str(path))
        assert len(ran) == len(set(ran)) == count
        merge = f"ci merge --plan=FOLDER/plan.json {' '.join(folders)} --out=FOLDER/merged"
        work = (f"cache unpack {' '.join(packs)}", f"cache pack {target} --out=FOLDER/results.pack")
        clones.job("merge", *work, merge)
        report = json.loads((shared / "merged/hello/hello_matrix/report.json").read_text())
        assert [cell["label"] for cell in report["cells"]] == CELLS
        assert report["summary"] == {"passed": 6, "cached": cached, "total": 6}
        kept = ["cache unpack FOLDER/results.pack"]
