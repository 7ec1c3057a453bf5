"""A proxy of Go modules as a folder, with small modules of a test's own."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

GO = "go 1.24\n"


def release(proxy: Path, module: str, version: str, files: Mapping[str, str], requires: str = "") -> None:
    """Publish a version of a module, with these files and a go.mod; `requires` are further lines of that."""
    mod = f"module {module}\n\n{GO}\n{requires}\n"
    folder = proxy / module / "@v"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{version}.info").write_text(json.dumps({"Version": version}))
    (folder / f"{version}.mod").write_text(mod)
    with (folder / "list").open("a") as file:
        file.write(f"{version}\n")
    with zipfile.ZipFile(folder / f"{version}.zip", "w") as archive:
        for path, text in {"go.mod": mod, **files}.items():
            archive.writestr(f"{module}@{version}/{path}", text)


def environment(proxy: Path) -> dict[str, str]:
    """Return the variables by which Go asks this proxy, and nobody else."""
    return {"GOPROXY": f"file://{proxy}", "GOSUMDB": "off"}
