"""A language model in the manner of MASFormer (arXiv 2310.12442): full attention in 8 of 24 layers.

What a state space does in SPADE at linear cost, few layers of full attention do here at quadratic
cost, while the others have windows. It is what to hold SPADE of that size against, which is
--config.model.decoder.layers="s4+window:concat, 23*window". MASFormer goes on training a model of
1.3 billion parameters; this one, as large, begins with random ones, or with those of a run of yours
(--config.init_from).

Documents are JSON lines with a `text`, long ones, in two sets that do not overlap:

    python -m spade_jax.data.train_vocabulary --kind=jsonl --input='long/train*.jsonl.gz' \\
        --output=long/50k.model --size=50000
    python -m pretrain --config=configs/pretrain/lm_masformer.py --workdir=runs/masformer

For accelerators. It has not been run, so no time and no score stand here.
"""

import ml_collections

from pretrain.config import PretrainConfig
from spade_jax.config import AttentionConfig, DecoderOnlyConfig, StackConfig
from spade_jax.config.file import to_config_dict
from spade_jax.data.config import SourceConfig, TextBlocksConfig
from spade_jax.mixers import Full, Window
from spade_jax.training.config import OptimizerConfig, TrainConfig


def get_config() -> ml_collections.ConfigDict:
    return to_config_dict(
        PretrainConfig(
            model=DecoderOnlyConfig(
                # 50,000 tokens, filled up to a multiple of 128.
                vocab_size=50_048,
                d_model=2048,
                d_ff=8192,
                decoder=StackConfig("8*full, 16*window"),
                mixers={"full": Full(), "window": Window(1023)},
                attention=AttentionConfig(num_heads=16, scale_queries=True),
                norm="layer",
                norm_epsilon=1e-5,
                feed_forward="gelu",
                feed_forward_bias=True,
                dropout_rate=0.1,
                dtype="bfloat16",
                remat="dots",
            ),
            data=TextBlocksConfig(
                sources=(
                    SourceConfig(
                        kind="jsonl",
                        train="long/train*.jsonl.gz",
                        validation="long/validation*.jsonl.gz",
                    ),
                ),
                vocabulary="long/50k.model",
                extra_ids=0,
                input_length=8192,
            ),
            optimizer=OptimizerConfig(
                learning_rate=2e-4, betas=(0.9, 0.95), weight_decay=0.1, warmup_steps=2_000
            ),
            train=TrainConfig(
                steps=100_000,
                batch_size=64,
                eval_every=2_000,
                eval_batches=50,
                checkpoint_every=2_000,
                log_every=100,
            ),
        )
    )
