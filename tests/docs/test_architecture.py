"""The code of docs/architecture.md, as it stands there."""

import re
from pathlib import Path

import pytest

from spade_jax.config.mixer import MixerConfig
from spade_jax.models import build
from spade_jax.ops.attention.window import WINDOW_ATTENTION

GUIDE = Path(__file__).parents[2] / "docs" / "architecture.md"


@pytest.fixture
def nothing_stays(monkeypatch):
    """What the guide registers is gone afterwards."""
    monkeypatch.setattr(MixerConfig, "KINDS", dict(MixerConfig.KINDS))
    monkeypatch.setattr(WINDOW_ATTENTION, "implementations", {**WINDOW_ATTENTION.implementations})


@pytest.mark.usefixtures("nothing_stays")
def test_the_recipes_run_as_written():
    text = GUIDE.read_text(encoding="utf-8")
    names = {"__name__": "guide"}
    kinds = dict(build.KINDS)
    for block in re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        # With the lines before it, so that what goes wrong names its line.
        line = text[: block.start(1)].count("\n")
        exec(compile("\n" * line + block[1], str(GUIDE), "exec"), names)
    build.KINDS.pop(names["TextConfig"])
    assert kinds == build.KINDS
    assert names["logits"].shape == (2, 5, 64)
    assert "simple" in WINDOW_ATTENTION.implementations
