"""The language model's quickstart: a small byte-level SPADE on the State of the Union.

python -m pretrain --config=configs/pretrain/lm_quickstart.py --workdir=runs/lm

It takes some two and a half minutes on two CPU cores, and ends with a validation perplexity of
about 3.15 per byte (1.66 bits), where guessing by frequency has 19.5.
"""

import ml_collections

from pretrain.config import PretrainConfig
from spade_jax.config import AttentionConfig, DecoderOnlyConfig, StackConfig
from spade_jax.config.file import to_config_dict
from spade_jax.data.config import TextBlocksConfig
from spade_jax.mixers import S4, Window
from spade_jax.training.config import OptimizerConfig, TrainConfig


def get_config() -> ml_collections.ConfigDict:
    return to_config_dict(
        PretrainConfig(
            model=DecoderOnlyConfig(
                d_model=128,
                d_ff=384,
                decoder=StackConfig("s4+window:concat, 2*window"),
                mixers={"s4": S4(state_size=16, chunk_length=64), "window": Window(31)},
                attention=AttentionConfig(num_heads=4, head_dim=32),
                scale_embeddings=True,
            ),
            data=TextBlocksConfig(input_length=512, extra_ids=0),
            optimizer=OptimizerConfig(
                learning_rate=3e-3,
                warmup_steps=40,
                schedule="cosine",
                learning_rates=((r".*bias/table", 3e-2), (".*", None)),
            ),
            train=TrainConfig(
                steps=400,
                batch_size=8,
                eval_every=200,
                eval_batches=16,
                checkpoint_every=200,
                log_every=10,
            ),
            samples=2,
        )
    )
