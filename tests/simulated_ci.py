"""A CI on this machine: it runs the shell steps of a recipe that `bk init` has written, each job in a new clone.

The clones share nothing but what the recipe shares: the remote cache, and the artifacts that jobs upload and download.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import recipes
from spaces import Space, copy_of_cache

from bkrules.starter.files import CI

AGENT = """#!{python}
import fnmatch, os, shutil, sys
_, _, query, target = sys.argv[1:]
store = os.environ["STORE"]
paths = [os.path.join(folder, name) for folder, _, names in os.walk(store) for name in names]
found = [path for path in paths if fnmatch.fnmatchcase(os.path.relpath(path, store), query.replace("**/*", "*"))]
for path in found:
    copy = os.path.join(target, os.path.relpath(path, store))
    os.makedirs(os.path.dirname(copy), exist_ok=True)
    shutil.copyfile(path, copy)
sys.exit(not found)
"""
COMMANDS = {"sudo": '#!/bin/sh\n[ "$1" != -E ] || shift\nexec "$@"\n', "apt-get": "#!/bin/sh\nexit 0\n"}
REPORTS = "bk-out/*/*/plan_*/report.json"
LAUNCHER = '#!/bin/sh\nexec "{python}" -I -m bkrules --nohome_rc "$@"\n'


@dataclass
class Job:
    """A job that has run: its exit code, what it printed, and the cells that ran in it."""

    name: str
    code: int
    printed: str
    ran: list[str] = field(default_factory=list)
    page: tuple[str, int] | None = None
    """The outcome on the page of its cells, and how many the page has."""


@dataclass
class Pipeline:
    """A pipeline that has run. `merged` is the folder of the merged reports."""

    jobs: list[Job] = field(default_factory=list)
    merged: Path = Path()

    @property
    def ran(self) -> list[list[str]]:
        """The cells that ran, by the jobs that ran any, each sorted."""
        return sorted(sorted(job.ran) for job in self.jobs if job.ran)

    @property
    def last(self) -> Job:
        """The job that merges."""
        return self.jobs[-1]

    @property
    def page(self) -> tuple[str, int] | None:
        """The page of all cells."""
        return _page(self.merged / "report.html")

    def report(self, matrix: str) -> dict[str, Any]:
        """The merged report of a matrix."""
        document: dict[str, Any] = json.loads((self.merged / matrix / "report.json").read_text())
        return document


class SimulatedCi:
    """The CI of a repository, which is a workspace with recipes. `lost` are the jobs, by their index, that never report."""

    def __init__(self, space: Space, folder: Path, cache: str = "") -> None:
        self._space, self._folder, self._cache = space, folder, cache
        self._count = 0
        for name, text in {**COMMANDS, "buildkite-agent": AGENT.format(python=sys.executable)}.items():
            path = folder / "bin" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(0o755)
        space.write("bk", LAUNCHER.format(python=sys.executable)).chmod(0o755)
        for ci in CI:
            done = space.bk("init", f"--ci={ci}")
            assert done.returncode == 0, done.stderr
        self.lost: frozenset[int] = frozenset()

    def run(self, ci: str) -> Pipeline:
        """Run the pipeline of a recipe for the current files of the repository."""
        self._count += 1
        store = self._folder / f"store-{self._count}"
        store.mkdir()
        recipe = recipes.read((self._space.root / CI[ci]).read_text())
        pipeline = Pipeline(merged=store / "merged")
        {"github": self._github, "gitlab": self._gitlab, "buildkite": self._buildkite}[ci](recipe, store, pipeline)
        return pipeline

    def job(
        self,
        pipeline: Pipeline,
        name: str,
        steps: Sequence[str],
        store: Path,
        variables: Mapping[str, str],
        after: Sequence[str] = (),
    ) -> Iterator[Path]:
        """Run the steps of a job in a new clone, and those `after` them whatever happens; yield the clone before and at the end."""
        clone = self._folder / f"clone-{name}-{self._count}"
        shutil.copytree(self._space.root, clone, symlinks=True, ignore=shutil.ignore_patterns("bk-out"))
        caches = self._folder / f"caches-{name}-{self._count}"
        caches.mkdir()
        copy_of_cache(self._space.cache, caches / "bk")
        environment = {
            **os.environ,
            "PATH": f"{self._folder / 'bin'}:{os.environ['PATH']}",
            "XDG_CACHE_HOME": str(caches),
            "BK_REMOTE_CACHE": self._cache,
            "CACHE": self._cache,
            "RUNNER_TEMP": str(caches),
            "GITHUB_OUTPUT": str(self._folder / f"output-{self._count}"),
            "STORE": str(store),
            **variables,
        }
        yield clone
        job = Job(name, 0, "")
        for step in (*steps, *after):
            if job.code and step not in after:
                continue
            done = subprocess.run(
                ["sh", "-e", "-c", step], cwd=clone, env=environment, capture_output=True, text=True, check=False
            )
            job.printed += done.stdout + done.stderr
            assert done.returncode == 0 or step not in after, job.printed
            job.code = job.code or done.returncode
        for path in () if any("ci merge" in step for step in steps) else clone.glob(REPORTS):
            job.ran += [cell["label"] for cell in json.loads(path.read_text())["cells"] if not cell["cached"]]
        job.page = _page(clone / "bk-out/report.html")
        pipeline.jobs.append(job)
        yield clone
        shutil.rmtree(clone)
        shutil.rmtree(caches)

    def _github(self, recipe: Any, store: Path, pipeline: Pipeline) -> None:
        jobs = recipe["jobs"]
        self._github_job(pipeline, jobs["plan"], "plan", store, {})
        output = (self._folder / f"output-{self._count}").read_text()
        planned = json.loads(output.removeprefix("jobs="))["include"]
        for index, one in enumerate(planned):
            job = {**jobs["cells"], "index": index}
            self._github_job(pipeline, job, f"cells-{index}", store, {"ARGUMENTS": one["arguments"]})
        self._github_job(pipeline, jobs["report"], "report", store, {})

    def _github_job(self, pipeline: Pipeline, job: Any, name: str, store: Path, variables: Mapping[str, str]) -> None:
        uses = [step for step in job["steps"] if "artifact" in step.get("uses", "")]
        runs = [one for one in job["steps"] if "run" in one]
        assert {one["if"] for one in job["steps"] if "if" in one} <= {"success() || failure()"}
        steps, after = ([one["run"] for one in runs if ("if" in one) == late] for late in (False, True))
        phases = self.job(pipeline, name, steps, store, variables, after)
        clone = next(phases)
        for step in uses:
            what = step["with"]
            if "download-artifact" in step["uses"]:
                source = store / what["name"] if "name" in what else store
                shutil.copytree(source, clone / what["path"], dirs_exist_ok=True)
        next(phases)
        for step in uses:
            what = step["with"]
            if "upload-artifact" in step["uses"] and job.get("index") not in self.lost:
                path = clone / what["path"]
                target = store / what["name"].replace("${{ strategy.job-index }}", str(job.get("index")))
                _upload(path, target / path.name if path.is_file() else target)
        list(phases)

    def _gitlab(self, recipe: Any, store: Path, pipeline: Pipeline) -> None:
        assert recipe["stages"] == ["plan", "cells", "report"]
        for name in recipe["stages"]:
            job = recipe[name]
            assert job["stage"] == name
            count = job.get("parallel", 1)
            for number in range(1, count + 1):
                variables = {"CI_NODE_INDEX": str(number), "CI_NODE_TOTAL": str(count)}
                phases = self.job(
                    pipeline, f"{name}-{number}", job["script"], store, variables, job.get("after_script", ())
                )
                clone = next(phases)
                for needed in job.get("needs", []):
                    if (store / needed).is_dir():
                        shutil.copytree(store / needed, clone, dirs_exist_ok=True)
                next(phases)
                for path in job["artifacts"]["paths"]:
                    if (clone / path).exists() and not (name == "cells" and number - 1 in self.lost):
                        _upload(clone / path, store / name / path)
                list(phases)
        pipeline.merged = store / "report/merged"

    def _buildkite(self, recipe: Any, store: Path, pipeline: Pipeline) -> None:
        for number, step in enumerate(one for one in recipe["steps"] if isinstance(one, dict) and "command" in one):
            for index in range(step.get("parallelism", 1)):
                variables = {"BUILDKITE_PARALLEL_JOB": str(index)}
                commands = ["\n".join(line.replace("$$", "$") for line in step["command"])]
                phases = self.job(pipeline, f"step-{number}-{index}", commands, store, variables)
                clone = next(phases)
                next(phases)
                if not ("parallelism" in step and index in self.lost):
                    for path in sorted(_files(clone)):
                        name = str(path.relative_to(clone))
                        if fnmatch.fnmatchcase(name, step["artifact_paths"].replace("**/*", "*")):
                            _upload(path, store / name)
                list(phases)


def _page(path: Path) -> tuple[str, int] | None:
    if not path.is_file():
        return None
    text = path.read_text()
    (outcome,) = re.findall('data-outcome="([a-z]+)"', text)
    (count,) = re.findall(r'<p class="counts">(\d+) cells?:', text)
    return outcome, int(count)


def _files(folder: Path) -> Sequence[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]


def _upload(path: Path, target: Path) -> None:
    """Copy a file or a folder, without hidden files, as CIs do by default."""
    if path.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    elif path.is_dir():
        shutil.copytree(path, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))
