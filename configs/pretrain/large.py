"""SPADE large on long documents of C4: 24 + 24 layers, 4096 tokens in, 910 out.

The vocabulary and the data are those of base.py; 256 sentinels, for 227 spans are masked in 4096
tokens:

    python -m pretrain --config=configs/pretrain/large.py --workdir=runs/large

For accelerators: at 40% of their peak 2,829 chip hours of v5e or 1,214 of v5p for the whole run
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
            # 32000 tokens and 256 sentinels.
            model=preset("large", vocab_size=32256, dtype="bfloat16", remat="full"),
            data=DataConfig(
                sources=(
                    SourceConfig(
                        kind="tfds", name="c4/en:3.1.0", train="train", validation="validation"
                    ),
                ),
                vocabulary="c4.32k.model",
                extra_ids=256,
                input_length=4096,
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
                batch_size=128,
                eval_every=5_000,
                eval_batches=50,
                checkpoint_every=5_000,
                log_every=100,
            ),
        )
    )
