"""The smallest run with everything in it: a second or two once it is compiled."""

from pretrain.config import PretrainConfig
from spade_jax.config import AttentionConfig, StackConfig
from spade_jax.config.file import to_config_dict
from spade_jax.data.config import DataConfig
from spade_jax.mixers import S4, Window
from spade_jax.models.presets import preset
from spade_jax.training.config import OptimizerConfig, TrainConfig


def get_config():
    return to_config_dict(
        PretrainConfig(
            model=preset(
                "tiny",
                d_model=16,
                d_ff=32,
                encoder=StackConfig("s4+window:concat, window"),
                decoder=StackConfig("full"),
                mixers={"s4": S4(state_size=4, chunk_length=16), "window": Window(7)},
                attention=AttentionConfig(num_heads=2, num_buckets=8, max_distance=16),
                dropout_rate=0.1,
            ),
            data=DataConfig(input_length=64, shuffle_buffer=16, document_shuffle_buffer=2),
            optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=4),
            train=TrainConfig(
                steps=24,
                batch_size=8,
                microbatches=2,
                eval_every=6,
                eval_batches=2,
                checkpoint_every=4,
                keep=2,
                log_every=1,
            ),
            samples=1,
        )
    )
