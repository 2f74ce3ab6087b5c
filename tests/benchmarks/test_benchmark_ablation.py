"""The table of what the state space is worth."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import ablation
from pretrain.config import PretrainConfig
from spade_jax.config import ConfigError
from spade_jax.config.file import parse_overrides, read_config

CONFIG = str(Path(__file__).parents[1] / "pretrain" / "miniature_lm.py")


def config_with(*settings):
    return read_config(CONFIG, parse_overrides(settings, None), PretrainConfig, "pretrain")


def test_variants_differ_in_the_state_space_alone():
    config = config_with()
    one, frozen, without = (
        config_with(*ablation.settings_of(config, variant, 1)) for variant in ablation.VARIANTS
    )
    assert one.model == frozen.model == config.model
    assert without.model.decoder.layers == "window, window"
    assert frozen.optimizer.learning_rates[0] == (".*global_mixer/.*", 0.0)
    assert {c.train.seed for c in (one, frozen, without)} == {1}
    several = config_with("--config.model.decoder.layers=2*(s4+window:add, window), s4+window")
    settings = ablation.settings_of(several, ablation.WITHOUT, 0)
    assert config_with(*settings).model.decoder.layers == "2*(window, window), window"
    with pytest.raises(ConfigError, match=r"^model = .*: must have a layer of two mixers"):
        ablation.settings_of(without, ablation.WITH, 0)


def test_runs_that_are_there_are_not_run_again(tmp_path, capsys, monkeypatch):
    losses = {"with": (2.0, 3.0), "frozen": (4.0, 5.0), "without": (6.0, 8.0)}
    done = []

    def run(command):
        done.append(command)
        variant = "frozen" if any("learning_rates" in part for part in command) else "with"
        variant = "without" if any("layers" in part for part in command) else variant
        seed = next(int(part[-1]) for part in command if "train.seed" in part)
        evaluations = [{"step": 4, "loss": 9.0}, {"step": 8, "loss": losses[variant][seed]}]
        return {"command": list(command), "evaluations": evaluations, "parameters": 1234}

    monkeypatch.setattr(ablation, "run", run)
    arguments = [f"--config={CONFIG}", "--seeds=2", f"--output={tmp_path / 'runs'}"]
    arguments.append(f"--picture={tmp_path / 'picture.png'}")
    assert ablation.main(arguments) == 0
    assert len(done) == len((tmp_path / "runs").read_text().splitlines()) == 6
    printed = " ".join(capsys.readouterr().out.split())
    for text in ("2.5000 ± 0.7071", "4.5000 ± 0.7071", "7.0000 ± 1.4142", "1,234"):
        assert text in printed
    assert (tmp_path / "picture.png").stat().st_size > 5000
    assert ablation.main(arguments) == 0
    assert len(done) == 6
    assert json.loads((tmp_path / "runs").read_text().splitlines()[0])["parameters"] == 1234


def test_means_and_deviations():
    config = config_with()
    runs = [{"evaluations": [{"step": 8, "loss": x}], "parameters": 5} for x in (1.0, 2.0, 3.0)]
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(ablation.table("title", config, dict.fromkeys(ablation.VARIANTS, runs)))
    text = console.export_text()
    assert text.count("2.0000 ± 1.0000") == 3
    assert "8 updates of 4 x 64, 3 seeds" in text
