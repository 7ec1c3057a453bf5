"""What pytest users expect works in a cell too: parameters, marks, fixtures, classes."""

import os
from pathlib import Path

import pytest

from bkrules.testing.sandbox import Sandbox

SIZES = [1, 2]
SEEN: list[str] = []


@pytest.fixture
def noted() -> None:
    SEEN.append("noted")


@pytest.mark.parametrize("text", ["one", "two"])
@pytest.mark.parametrize("count", [1, pytest.param(3, marks=pytest.mark.skip(reason="three are too many"))])
def test_literal_parameters(sandbox: Sandbox, text: str, count: int) -> None:
    """Each set is a separate cell, in a process that sees no other."""
    assert sandbox.name == f"test_literal_parameters[{count}-{text}]/worker={sandbox.worker}"
    assert SEEN == []
    SEEN.append(text)


@pytest.mark.parametrize("size", SIZES)
def test_other_parameters(sandbox: Sandbox, size: int) -> None:
    """Sets that are not literals are separate cells too."""
    assert sandbox.name == f"test_other_parameters[{size}]/worker={sandbox.worker}"
    assert SEEN == []
    SEEN.append(f"size {size}")


@pytest.mark.parametrize("text", ["one", "two"])
@pytest.mark.parametrize("kind", ["file"], indirect=True)
def test_a_parametrized_fixture(sandbox: Sandbox, kind: str, text: str) -> None:
    assert sandbox.name.startswith(f"test_a_parametrized_fixture[{kind}-{text}]/")


@pytest.fixture
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["left", "right"])
def side(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("text", ["one", "two"])
def test_a_fixture_with_parameters(sandbox: Sandbox, side: str, text: str) -> None:
    """The parameters of a fixture are a part of the test's name, as pytest has it."""
    assert sandbox.name == f"test_a_fixture_with_parameters[{side}-{text}]/worker={sandbox.worker}"
    assert SEEN == []
    SEEN.append(side)


@pytest.mark.usefixtures("noted")
def test_usefixtures(sandbox: Sandbox) -> None:
    assert SEEN == ["noted"]


@pytest.mark.xfail(reason="one is not two", strict=True)
def test_an_expected_failure(sandbox: Sandbox) -> None:
    assert sandbox.address == "two"


@pytest.mark.skip(reason="nobody needs it")
def test_a_skip_that_is_known_before(sandbox: Sandbox) -> None:
    raise AssertionError("it must not run")


@pytest.mark.skipif(os.path.exists("/proc"), reason="worked out in the cell")
def test_a_skip_that_the_cell_works_out(sandbox: Sandbox) -> None:
    raise AssertionError("it must not run")


@pytest.mark.no_rootless
def test_needs_privileges(sandbox: Sandbox) -> None:
    assert not sandbox.rootless


@pytest.mark.no_parallel
@pytest.mark.extra_timeout
def test_alone(sandbox: Sandbox) -> None:
    own = {path.name for path in Path("/proc").iterdir() if path.name.isdigit()}
    assert "1" in own


class TestGroup:
    """A class of tests, with what it sets up for each."""

    def setup_method(self) -> None:
        SEEN.append("set up")

    def test_first(self, sandbox: Sandbox) -> None:
        assert SEEN == ["set up"]
        assert sandbox.name == f"TestGroup::test_first/worker={sandbox.worker}"

    @pytest.mark.parametrize("text", ["one"])
    def test_second(self, sandbox: Sandbox, text: str) -> None:
        assert SEEN == ["set up"]
        assert sandbox.name == f"TestGroup::test_second[one]/worker={sandbox.worker}"
