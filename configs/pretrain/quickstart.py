"""The quickstart: a small byte-level SPADE learns to fill in spans of the State of the Union.

python -m pretrain --config=configs/pretrain/quickstart.py --workdir=runs/quickstart
"""

import ml_collections

from pretrain.config import PretrainConfig
from spade_jax.config import preset
from spade_jax.data.config import DataConfig, DenoiserConfig
from spade_jax.training.command_line import to_config_dict
from spade_jax.training.config import OptimizerConfig, TrainConfig


def get_config() -> ml_collections.ConfigDict:
    return to_config_dict(
        PretrainConfig(
            model=preset("tiny", vocab_size=384),
            data=DataConfig(
                input_length=256,
                denoisers=(DenoiserConfig(noise_density=0.15, mean_span_length=8.0),),
            ),
            optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=50),
            train=TrainConfig(
                steps=400,
                batch_size=16,
                eval_every=100,
                eval_batches=16,
                checkpoint_every=100,
                log_every=1,
            ),
        )
    )
