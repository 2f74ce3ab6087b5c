"""Majority: which of four letters comes most often in 256? What windows of attention cannot count.

    python -m benchmarks.majority --output=lra/majority
    python -m pretrain --config=configs/lra/majority.py --workdir=runs/majority
    python -m benchmarks.ablation --config=configs/lra/majority.py

Half a minute on two CPU cores. The accuracies with and without the state space are in
benchmarks/README.md.
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
                classes=4,
                d_model=64,
                d_ff=128,
                # The last letter is looked at alone: two layers of windows reach 30 letters back.
                encoder=StackConfig("s4+window:concat, window"),
                mixers={"s4": S4(state_size=16, chunk_length=64), "window": Window(15)},
                attention=AttentionConfig(num_heads=4),
                causal=True,
                pooling="last",
                embedding_std=1.0,
            ),
            data=ClassificationDataConfig(
                train="lra/majority/train.tsv",
                validation="lra/majority/validation.tsv",
                labels=("a", "b", "c", "d"),
                classes=4,
                length=256,
            ),
            optimizer=OptimizerConfig(learning_rate=3e-3, schedule="cosine", warmup_share=0.1),
            train=TrainConfig(
                steps=150, batch_size=16, eval_every=50, checkpoint_every=300, keep=1
            ),
            samples=1,
        )
    )
