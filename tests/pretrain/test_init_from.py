"""A run that begins with the parameters of another one."""

from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from pretrain.__main__ import main
from spade_jax.loading import model_of
from spade_jax.runs.open import open_run

MINIATURE = f"--config={Path(__file__).parent / 'miniature.py'}"


@pytest.fixture
def arguments(pretrained, tmp_path):
    return [
        MINIATURE,
        "--config.model=None",
        f"--config.init_from={pretrained}",
        f"--workdir={tmp_path / 'run'}",
        "--config.train.steps=1",
        "--config.train.eval_batches=1",
        "--config.optimizer.warmup_steps=0",
        "--config.samples=0",
    ]


def parameters(run):
    return jax.tree.leaves(nnx.to_pure_dict(nnx.state(model_of(run), nnx.Param)))


def test_it_begins_with_parameters_and_model_of_the_other(pretrained, arguments, tmp_path, capsys):
    still = [*arguments, "--config.optimizer.learning_rate=1e-30", "--config.dropout_rate=0.0"]
    assert main(still) == 0
    printed = "".join(capsys.readouterr().out.split())
    assert f"Beginningwiththeparametersof{pretrained},step2" in printed
    assert "allthatthismodelhas." in printed
    assert "Otherparameters" not in printed
    before, after = open_run(pretrained, "init_from"), open_run(tmp_path / "run", "workdir")
    assert after.model.dropout_rate == 0.0
    assert after.settings["init_from"] == str(pretrained)
    assert after.model.encoder == before.model.encoder
    assert after.model.vocab_size == 384  # That of bytes and 100 sentinels, in whole tiles.
    for one, other in zip(parameters(before), parameters(after), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    # What goes on needs the other run no more.
    assert main([*still, "--config.init_from=gone"]) == 0
    assert "This run is finished, at step 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--config.init_from=gone"], 2, "init_from = 'gone': no such folder; must be the workdir"),
        (["--config.init_from=None"], 2, "model = None: must be set where init_from is not"),
        (["--config.data.extra_ids=90"], 2, "must be the same, 'bytes' with 100 sentinels"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_written(
    arguments, tmp_path, capsys, options, status, message
):
    assert main([*arguments, *options]) == status
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_another_model_is_refused(pretrained, tmp_path, capsys):
    found = [MINIATURE, f"--config.init_from={pretrained}", f"--workdir={tmp_path / 'run'}"]
    assert main([*found, "--config.model.d_ff=48"]) == 1
    assert "is of another model: parameter" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
