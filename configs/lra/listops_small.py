"""ListOps (Long Range Arena), a small SPADE on expressions of the published length, for a CPU.

    python -m spade_jax.data.lra.listops --output=lra/listops_small --train=4000 --validation=500
    python -m pretrain --config=configs/lra/listops_small.py --workdir=runs/listops_small

Seven minutes of CPU time. Test accuracy .373 (standard error .011) where the
most frequent value has .177: about what the outermost operator tells, where Transformers stop, too.
"""

import ml_collections

from pretrain.config import PretrainConfig
from spade_jax.config import AttentionConfig, ClassifierConfig, StackConfig
from spade_jax.config.file import to_config_dict
from spade_jax.data.classification.config import ClassificationDataConfig
from spade_jax.mixers import S4, Window
from spade_jax.training.config import OptimizerConfig, TrainConfig


def get_config() -> ml_collections.ConfigDict:
    return to_config_dict(
        PretrainConfig(
            model=ClassifierConfig(
                classes=10,
                d_model=64,
                d_ff=128,
                encoder=StackConfig("s4+window:concat, window"),
                mixers={"s4": S4(state_size=16, chunk_length=64), "window": Window(31)},
                attention=AttentionConfig(num_heads=4),
                feed_forward="gelu",
                embedding_std=1.0,
                pooling="first",  # The operator whose value is asked for.
            ),
            data=ClassificationDataConfig(
                train="lra/listops_small/basic_train.tsv",
                validation="lra/listops_small/basic_val.tsv",
                test="lra/listops_small/basic_test.tsv",
                inputs=("Source",),
                target="Target",
                classes=10,
                encoding="listops",
                length=2048,
            ),
            optimizer=OptimizerConfig(learning_rate=3e-3, schedule="cosine", warmup_steps=20),
            train=TrainConfig(
                steps=200,
                batch_size=16,
                eval_every=50,
                checkpoint_every=100,
                keep=1,
                log_every=10,
            ),
            samples=1,
        )
    )
