"""The quickstart: a small byte-level SPADE learns to fill in spans of the State of the Union.

python -m pretrain --config=configs/pretrain/quickstart.py --workdir=runs/quickstart

It takes some two minutes on two CPU cores, and ends with a validation loss of about 2.2 nats per
target token, where guessing by frequency has 3.48.
"""

import ml_collections

from pretrain.config import PretrainConfig
from spade_jax.config import AttentionConfig, StackConfig
from spade_jax.config.file import to_config_dict
from spade_jax.data.config import DataConfig, DenoiserConfig
from spade_jax.models.presets import preset
from spade_jax.training.config import OptimizerConfig, TrainConfig


def get_config() -> ml_collections.ConfigDict:
    return to_config_dict(
        PretrainConfig(
            # Narrower and with fewer layers than tiny, for more updates in the time.
            model=preset(
                "tiny",
                d_model=64,
                d_ff=192,
                attention=AttentionConfig(num_heads=4, head_dim=16),
                encoder=StackConfig("s4+window:concat, 2*window"),
                decoder=StackConfig("2*full"),
            ),
            data=DataConfig(
                input_length=256,
                denoisers=(DenoiserConfig(noise_density=0.15, mean_span_length=3.0),),
            ),
            optimizer=OptimizerConfig(
                learning_rate=3e-3,
                warmup_steps=60,
                # Relative biases begin near zero and must grow to order 1 before a head can look
                # at one position; at the rate of the matrices that takes hundreds of updates.
                learning_rates=((r".*bias/table", 3e-2), (".*", None)),
            ),
            train=TrainConfig(
                steps=1000,
                batch_size=8,
                eval_every=200,
                eval_batches=32,
                checkpoint_every=200,
                log_every=10,
            ),
        )
    )
