"""The code of docs/architecture.md, as it stands there."""

import pytest
from guides import run_guide

from spade_jax.config.mixer import MixerConfig
from spade_jax.models import build
from spade_jax.ops.attention.window import WINDOW_ATTENTION


@pytest.fixture
def nothing_stays(monkeypatch):
    """What the guide registers is gone afterwards."""
    monkeypatch.setattr(MixerConfig, "KINDS", dict(MixerConfig.KINDS))
    monkeypatch.setattr(WINDOW_ATTENTION, "implementations", {**WINDOW_ATTENTION.implementations})


@pytest.mark.usefixtures("nothing_stays")
def test_the_recipes_run_as_written():
    kinds = dict(build.KINDS)
    names = run_guide("architecture.md")
    build.KINDS.pop(names["TextConfig"])
    assert kinds == build.KINDS
    assert names["logits"].shape == (2, 5, 64)
    assert "simple" in WINDOW_ATTENTION.implementations
