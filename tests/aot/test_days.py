"""How long a whole configuration takes."""

from pathlib import Path

import pytest

from pretrain.compile import main
from pretrain.config import PretrainConfig
from pretrain.days import durations, step_flops
from spade_jax.aot.topology import parse_topology
from spade_jax.config import ConfigError
from spade_jax.config.file import read_config
from spade_jax.models.flops import train_step_flops

ROOT = Path(__file__).parents[2]
BASE = str(ROOT / "configs" / "pretrain" / "base.py")


def test_days_by_hand():
    config = read_config(BASE, {}, PretrainConfig, "pretrain")
    flops = train_step_flops(config.model, 256, *config.data.lengths)
    assert step_flops(config) == flops
    topologies = [parse_topology(name, 1) for name in ("v5e:4x4", "v5p:4x4x4")]
    first, second = durations(config, topologies, 0.5)
    assert first.step == pytest.approx(flops / (0.5 * 16 * 197e12))
    assert first.days == pytest.approx(first.step * 500_000 / 86400)
    assert first.device_hours == pytest.approx(first.days * 24 * 16)
    assert second.step == pytest.approx(first.step * (16 * 197) / (64 * 459))
    with pytest.raises(ConfigError, match=r"^--topology = 'cpu:1': must be of v4, v5e"):
        durations(config, [parse_topology("cpu:1", 1)], 0.5)


def test_the_command_puts_topologies_side_by_side(capsys):
    arguments = [f"--config={BASE}", "--topology=v5e:4x4,v5p:4x4x4"]
    assert main([*arguments, "--days", "--share=0.3"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for text in ("500,000 updates of 256 x (512 + 114) tokens", "v5e:4x4 (16)", "30% of"):
        assert text in printed
    assert main(arguments) == 2
    assert "must be one; several go with --days" in capsys.readouterr().err
    assert main([*arguments, "--days", "--share=1.5"]) == 2
    assert "--share = 1.5: must be at most 1" in capsys.readouterr().err
