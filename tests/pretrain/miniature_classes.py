"""The smallest run of a classifier: a second or two once it is compiled. Tests name its data."""

from pretrain.config import PretrainConfig
from spade_jax.config import AttentionConfig, ClassifierConfig, StackConfig
from spade_jax.config.file import to_config_dict
from spade_jax.data.classification.config import ClassificationDataConfig
from spade_jax.mixers import S4, Window
from spade_jax.training.config import OptimizerConfig, TrainConfig


def get_config():
    return to_config_dict(
        PretrainConfig(
            model=ClassifierConfig(
                classes=2,
                d_model=16,
                d_ff=32,
                head_width=16,
                encoder=StackConfig("s4+window:concat"),
                mixers={"s4": S4(state_size=4, chunk_length=16), "window": Window(7)},
                attention=AttentionConfig(num_heads=2, num_buckets=8, max_distance=16),
                dropout_rate=0.1,
            ),
            data=ClassificationDataConfig(
                train="train.csv",
                validation_share=0.2,
                test_share=0.2,
                labels=("negative", "positive"),
                length=48,
            ),
            optimizer=OptimizerConfig(learning_rate=1e-2, schedule="constant", warmup_steps=0),
            train=TrainConfig(steps=8, batch_size=8, eval_every=2, checkpoint_every=4, keep=1),
            samples=2,
        )
    )
