"""The image of a terminal in README.md: `python docs/site/terminal_image.py docs/images/terminal.svg`.

It records the real run of bk that `recorded.py` describes.
"""

from __future__ import annotations

import argparse
import io
import re
from pathlib import Path

import recorded
from rich.console import Console
from rich.text import Text

COLUMNS = 122


def image(text: str) -> str:
    """Return the SVG of a terminal that shows a command and its output. It names no font of a server."""
    console = Console(width=COLUMNS, record=True, file=io.StringIO(), force_terminal=True, color_system="standard")
    console.print(Text.assemble(("$ ", "dim"), f"bk {' '.join(recorded.COMMAND)}"))
    console.print(Text.from_ansi(text.rstrip()), soft_wrap=False)
    drawn = console.export_svg(title="bk", unique_id="bk")
    drawn = re.sub(r"\s*@font-face \{.*?\}", "", drawn, flags=re.DOTALL)
    return drawn.replace("Fira Code, monospace", "ui-monospace, monospace")


def main() -> None:
    """Record and write the image."""
    parser = argparse.ArgumentParser(description="Makes the image of a terminal in README.md.")
    parser.add_argument("file", type=Path, help="the SVG to write")
    arguments = parser.parse_args()
    with recorded.workspace() as folder:
        text = recorded.run_matrix(folder, "--color=yes")
    arguments.file.parent.mkdir(parents=True, exist_ok=True)
    arguments.file.write_text(image(text))


if __name__ == "__main__":
    main()
