"""SPADE base on C4, in the manner of T5 v1.1: 12 + 12 layers, 512 tokens in, 114 out.

Prepare C4 once with TensorFlow Datasets (`tfds build c4/en`), train a vocabulary on it, then start:

    python -m spade_jax.data.train_vocabulary --kind=tfds --name=c4/en:3.1.0 --input=train \\
        --output=c4.32k.model --size=32000
    python -m pretrain --config=configs/pretrain/base.py --workdir=runs/base

For accelerators: at 40% of their peak 187 chip hours of v5e or 80 of v5p for the whole run
(`python -m pretrain.compile --config=… --topology=… --days`). It has not been run to its end yet,
so no score stands here.
"""

import ml_collections

from pretrain.config import PretrainConfig
from spade_jax.config.file import to_config_dict
from spade_jax.data.config import DataConfig, SourceConfig
from spade_jax.models.presets import preset
from spade_jax.objectives.config import LossConfig
from spade_jax.training.config import OptimizerConfig, TrainConfig


def get_config() -> ml_collections.ConfigDict:
    return to_config_dict(
        PretrainConfig(
            # 32000 tokens and 100 sentinels, filled up to a multiple of 128.
            model=preset("base", vocab_size=32128, dtype="bfloat16", remat="dots"),
            data=DataConfig(
                sources=(
                    SourceConfig(
                        kind="tfds", name="c4/en:3.1.0", train="train", validation="validation"
                    ),
                ),
                vocabulary="c4.32k.model",
                input_length=512,
            ),
            optimizer=OptimizerConfig(
                name="adafactor",
                learning_rate=0.01,
                # The rate at update 1 and 10,000 is 0.01, at 100,000 it is 0.00316.
                schedule="rsqrt_decay",
                warmup_steps=10_000,
                weight_decay=0.0,
                clip_norm=None,
            ),
            loss=LossConfig(z_loss=1e-4),
            train=TrainConfig(
                steps=500_000,
                batch_size=256,
                eval_every=5_000,
                eval_batches=100,
                checkpoint_every=5_000,
                log_every=100,
            ),
        )
    )
