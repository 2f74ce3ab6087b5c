"""Every line of docs/python.md, in order, on the smallest run."""

import re

import jax.numpy as jnp
from guides import run_guide


def test_the_guide_runs_as_written(pretrained, tmp_path, monkeypatch, capsys):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "quickstart").symlink_to(pretrained)
    monkeypatch.chdir(tmp_path)
    names = run_guide("python.md")
    said = capsys.readouterr().out
    assert said.startswith("step 2, the newest: train.best_metric is None\n")
    assert "(2, 37) (2, 37, 16)\n" in said
    assert "embedding (384, 16)\n" in said
    assert re.search(r"\n(\d+) parameters, of which (?!\1 )\d+ are taken\n", said)
    losses = [float(loss) for loss in said.split("\n")[-4:-1]]
    assert losses[2] < losses[0]
    assert jnp.isfinite(names["vectors"]).all()
