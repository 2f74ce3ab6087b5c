import dataclasses

import pytest

from spade_jax.config import ConfigError
from spade_jax.objectives.config import LossConfig
from spade_jax.training.config import MeshConfig, OptimizerConfig, TrainConfig

TRAIN = TrainConfig(steps=10, batch_size=8)


@pytest.mark.parametrize(
    ("config", "changes", "setting"),
    [
        (OptimizerConfig(), {"name": "adam"}, "optimizer.name = 'adam'.*did you mean 'adamw'"),
        (OptimizerConfig(), {"learning_rate": 0.0}, "optimizer.learning_rate = 0.0"),
        (OptimizerConfig(), {"schedule": "cosin"}, "did you mean 'cosine'"),
        (
            OptimizerConfig(),
            {"schedule": "inverse_sqrt", "warmup_steps": 0},
            "optimizer.warmup_steps = 0",
        ),
        (OptimizerConfig(), {"final_fraction": 1.5}, "optimizer.final_fraction = 1.5"),
        (OptimizerConfig(), {"betas": (0.9, 1.0)}, "optimizer.betas"),
        (OptimizerConfig(), {"clip_norm": 0.0}, "optimizer.clip_norm = 0.0"),
        (OptimizerConfig(), {"weight_decay": -0.1}, "optimizer.weight_decay = -0.1"),
        (OptimizerConfig(), {"learning_rates": (("*", None),)}, r"must be a regular expression"),
        (OptimizerConfig(), {"weight_decays": ((".*", -1.0),)}, "must be at least 0, or None"),
        (LossConfig(), {"z_loss": -1.0}, "loss.z_loss = -1.0"),
        (LossConfig(), {"label_smoothing": 1.0}, "loss.label_smoothing = 1.0"),
        (TRAIN, {"steps": 0}, "train.steps = 0"),
        (TRAIN, {"keep": 0}, "train.keep = 0"),
        (TRAIN, {"eval_batches": 0}, "train.eval_batches = 0"),
        (TRAIN, {"profile_steps": (0, 3)}, r"train.profile_steps\[0\] = 0: must be at least 1"),
        (TRAIN, {"profile_steps": (4, 3)}, r"train.profile_steps = \(4, 3\): must be a first and"),
        (TRAIN, {"profile_steps": (9, 11)}, "from 1 to train.steps = 10, or None"),
        (TRAIN, {"profile_steps": (3,)}, r"train.profile_steps = \(3,\)"),
        (TRAIN, {"microbatches": 3}, "train.batch_size = 8: must be a multiple of .* = 3"),
        (TRAIN, {"seed": 2**70}, "train.seed = 1180591620717411303424: must be at most 4294967295"),
        (MeshConfig(), {"data": -2}, "mesh.data = -2: must be at least -1"),
        (MeshConfig(), {"data": -1}, "mesh.data and mesh.fsdp = -1"),
        (MeshConfig(), {"fsdp": 0}, "mesh.fsdp = 0"),
        (MeshConfig(), {"platform": "gpus"}, "did you mean 'gpu'"),
    ],
)
def test_rejects_with_setting_and_value(config, changes, setting):
    with pytest.raises(ConfigError, match=setting):
        dataclasses.replace(config, **changes)
