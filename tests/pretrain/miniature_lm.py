"""The smallest run of a language model: a second or two once it is compiled."""

from pretrain.config import PretrainConfig
from spade_jax.config import AttentionConfig, DecoderOnlyConfig, StackConfig
from spade_jax.config.file import to_config_dict
from spade_jax.data.config import TextBlocksConfig
from spade_jax.mixers import S4, Window
from spade_jax.training.config import OptimizerConfig, TrainConfig


def get_config():
    return to_config_dict(
        PretrainConfig(
            model=DecoderOnlyConfig(
                vocab_size=264,
                d_model=16,
                d_ff=32,
                decoder=StackConfig("s4+window:concat, window"),
                mixers={"s4": S4(state_size=4, chunk_length=16), "window": Window(7)},
                attention=AttentionConfig(num_heads=2, num_buckets=8, max_distance=16),
            ),
            data=TextBlocksConfig(
                input_length=64, extra_ids=0, shuffle_buffer=16, document_shuffle_buffer=2
            ),
            optimizer=OptimizerConfig(learning_rate=3e-3, schedule="constant", warmup_steps=0),
            train=TrainConfig(
                steps=8, batch_size=4, eval_every=4, eval_batches=2, checkpoint_every=4
            ),
            samples=1,
        )
    )
