"""The words of buildctl for a build, and the steps in what it prints."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from bkrules.declarative import observe
from bkrules.declarative.observe import words
from bkrules.declarative.seen import BuildRequest, Step
from bkrules.model.parameters import AxisValue

LOCAL = ["--local", "context=/src/context", "--local", "dockerfile=/src/dockerfile"]


def options(request: BuildRequest, **axes: Any) -> list[str]:
    """The values of --opt."""
    found = words(request, {name: AxisValue("x", value) for name, value in axes.items()})
    return [word for before, word in itertools.pairwise(found) if before == "--opt"]


def test_a_build_is_that_of_the_frontend_of_buildkit() -> None:
    start = ["build", "--progress=plain", "--frontend=dockerfile.v0", *LOCAL]
    assert words(BuildRequest("Dockerfile"), {})[: len(start)] == start
    assert options(BuildRequest("Dockerfile")) == [
        "cmdline=",
        "filename=Dockerfile",
        "build-arg:SOURCE_DATE_EPOCH=0",
    ]


def test_a_frontend_is_the_source_of_a_gateway() -> None:
    found = words(BuildRequest("D", frontend="docker.io/my/frontend:1"), {})
    assert "--frontend=gateway.v0" in found
    assert "source=docker.io/my/frontend:1" in found
    assert options(BuildRequest("D", build_args={"BUILDKIT_SYNTAX": "a"}))[0] == "filename=D"


def test_axis_values_take_precedence_and_those_that_change_the_worker_change_nothing() -> None:
    request = BuildRequest("D", target="one", platform="linux/amd64", build_args={"A": "1", "SOURCE_DATE_EPOCH": "7"})
    first = {"target": "two", "build_args": {"A": "2", "B": "3"}}
    assert options(request, first=first, second={"tools": {"runc": "//:runc"}}) == [
        *("cmdline=", "filename=D", "target=two", "platform=linux/amd64"),
        *("build-arg:A=2", "build-arg:B=3", "build-arg:SOURCE_DATE_EPOCH=7"),
    ]


OUTPUT = """#1 [internal] load build definition from Dockerfile
#1 DONE 0.0s
#4 [base 1/2] FROM docker.io/library/busybox:latest@sha256:00
#4 CACHED
#5 [base 2/2] RUN echo [1/2] #6 CACHED
#5 CACHED
#6 [stage-1 10/12] COPY --from=base /a /b
#6 DONE 0.1s
#7 [linux/arm64 2/2] RUN make
#7 CACHED
"""


def test_steps_are_instructions_without_from() -> None:
    assert list(observe._steps(OUTPUT)) == [
        Step("RUN echo [1/2] #6 CACHED", True),
        Step("COPY --from=base /a /b", False),
        Step("RUN make", True),
    ]


@pytest.mark.parametrize(
    ("media_type", "readable"),
    [
        ("application/vnd.oci.image.layer.v1.tar", True),
        ("application/vnd.oci.image.layer.v1.tar+gzip", True),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", True),
        ("application/vnd.oci.image.layer.v1.tar+zstd", False),
        ("application/vnd.in-toto+json", False),
    ],
)
def test_layers_that_python_cannot_read_are_refused(media_type: str, readable: bool) -> None:
    assert bool(observe._LAYERS(media_type)) == readable
