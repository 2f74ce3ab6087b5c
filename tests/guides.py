"""The code of a guide in docs/, run as it stands there."""

import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"


def run_guide(name: str) -> dict[str, Any]:
    """Runs all blocks of Python, in order; gives the names that they leave."""
    path = DOCS / name
    text = path.read_text(encoding="utf-8")
    names: dict[str, Any] = {"__name__": "guide"}
    for block in re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        # With the lines before it, so that what goes wrong names its line.
        line = text[: block.start(1)].count("\n")
        exec(compile("\n" * line + block[1], str(path), "exec"), names)
    return names
