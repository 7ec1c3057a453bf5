"""Workspaces that grow: so many cells of one module in each of several forms, analysed and keyed in this process."""

from __future__ import annotations

from pathlib import Path

TOOLS = ("buildctl", "buildkitd", "registry", "runc")
FORMS = ("sets", "file", "tests", "methods")
BUILD = """from bkrules import image_mirror, test_matrix, worker
image_mirror(name = "mirror", images = {})
worker(name = "oci", plugin = "oci")
test_matrix(name = "m", tests = ["test_it.py"], workers = [":oci"], mirror = ":mirror")
"""
TARGETS = """from bkrules import genrule
[genrule(name = f"t{{number}}", outs = [f"o{{number}}"], cmd = ["true"]) for number in range({})]
"""
_BODY = "    assert sandbox.name != {number}\n"


def module(form: str, cells: int) -> str:
    """A module with so many tests: sets of one function, of ten functions, functions, or methods of one class.

    No cell of a module is in one of another size, so that no cache of this process helps.
    """
    return f"CELLS = {cells}\n\n\n{_tests(form, cells)}"


def _tests(form: str, cells: int) -> str:
    if form in ("sets", "file"):
        functions = 1 if form == "sets" else 10
        sets = "".join(f"        {number},\n" for number in range(cells // functions))
        parts = [
            f'@pytest.mark.parametrize("number", [\n{sets}    ])\ndef test_{name}(sandbox, number):\n'
            + _BODY.format(number=name)
            for name in range(functions)
        ]
        return "import pytest\n\n\n" + "\n\n".join(parts)
    if form == "methods":
        inner = (
            f"    def test_{number}(self, sandbox):\n    " + _BODY.format(number=number) for number in range(cells)
        )
        return "class TestAll:\n" + "\n".join(inner)
    return "\n\n".join(f"def test_{number}(sandbox):\n" + _BODY.format(number=number) for number in range(cells))


def write(root: Path, form: str, cells: int, modules: int = 1) -> None:
    """Write a workspace with matrices of so many cells each, or with packages of so many `targets`."""
    root.mkdir(parents=True, exist_ok=True)
    binaries = "".join(f"host_binary(name = {name!r}, binary = {str(root / name)!r})\n" for name in TOOLS)
    (root / "WORKSPACE.py").write_text(f"from bkrules import host_binary, workspace\nworkspace(name = 'w')\n{binaries}")
    for name in TOOLS:
        (root / name).write_text(f"the bytes of {name}")
    for number in range(modules):
        package = root / f"p{number}"
        package.mkdir(exist_ok=True)
        (package / "BUILD.py").write_text(TARGETS.format(cells) if form == "targets" else BUILD)
        if form != "targets":
            (package / "test_it.py").write_text(module(form, cells))
