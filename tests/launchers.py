"""The environments in which launchers are started."""

from __future__ import annotations

from pathlib import Path


def unkind(folder: Path) -> dict[str, str]:
    """An environment that would lead Python, pip or a shell astray: what says how to reach a registry is not in it."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text("raise SystemExit('the environment of the caller was used')")
    (folder / "env").write_text("exit 1\n")
    return {
        **dict.fromkeys(("PIP_TARGET", "PIP_PREFIX", "PYTHONHOME", "PYTHONPATH"), str(folder)),
        **dict.fromkeys(("PYTHONSTARTUP", "ENV", "BASH_ENV"), str(folder / "env")),
        **dict.fromkeys(("PIP_USER", "PIP_REQUIRE_HASHES", "PIP_DRY_RUN", "PYTHONINSPECT"), "1"),
        **{"PIP_LOG": "/no/x", "PIP_CONSTRAINT": "/no/such/file", "PIP_PYTHON": "/bin/false", "PIP_NO_BINARY": ":all:"},
        **{"CDPATH": "/:/usr", "IFS": "abn/", "GREP_OPTIONS": "-v"},
    }
