"""MEGA as a language model on WikiText-103 (arXiv 2209.10655): 16 layers, chunks of 1024.

Prepare the data as configs/pretrain/lm_wikitext103.py says, then:

    python -m pretrain --config=configs/pretrain/lm_mega_wikitext103.py --workdir=runs/mega
    python -m pretrain.perplexity --checkpoint=runs/mega --kind=text --input=wikitext/test.txt

For accelerators, on one host. An update has 147,456 tokens, which its authors had on 24 devices.
Two things are other than theirs: blocks have 4 chunks, where they draw 2 to 6; and the final norm
has a scale and a bias. They report a perplexity of 18.07. It has not been run here, so no time and
no score of ours stand here.
"""

import ml_collections

from pretrain.config import PretrainConfig
from spade_jax.config import AdaptiveConfig, AttentionConfig, DecoderOnlyConfig, StackConfig
from spade_jax.config.file import to_config_dict
from spade_jax.data.config import SourceConfig, TextBlocksConfig
from spade_jax.mixers import EMA, Mega
from spade_jax.training.config import OptimizerConfig, TrainConfig


def get_config() -> ml_collections.ConfigDict:
    return to_config_dict(
        PretrainConfig(
            model=DecoderOnlyConfig(
                # 267,735 words with that for the end, filled up.
                vocab_size=267_744,
                d_model=1024,
                d_ff=2048,
                decoder=StackConfig("16*mega", relative_bias="none"),
                mixers={
                    "mega": Mega(
                        query_dim=256,
                        value_dim=2048,
                        chunk_size=1024,
                        bias="rotary",
                        average=EMA(state_size=16, max_kernel_length=8192),
                        attention_dropout_rate=0.1,
                        hidden_dropout_rate=0.1,
                    )
                },
                # Of MEGA's one head.
                attention=AttentionConfig(num_heads=1),
                adaptive=AdaptiveConfig((20_000, 60_000), dropout_rate=0.2),
                scale_embeddings=True,
                norm="layer",
                norm_epsilon=1e-5,
                feed_forward="silu",
                feed_forward_bias=True,
                dropout_rate=0.3,
                feed_forward_dropout_rate=0.1,
                dtype="bfloat16",
                remat="dots",
            ),
            data=TextBlocksConfig(
                sources=(
                    SourceConfig(
                        kind="text", train="wikitext/train.txt", validation="wikitext/valid.txt"
                    ),
                ),
                vocabulary="wikitext/words.model",
                extra_ids=0,
                input_length=4096,
                # Lines in their order: only blocks of them are shuffled.
                document_shuffle_buffer=1,
            ),
            optimizer=OptimizerConfig(
                learning_rate=5e-3,
                schedule="linear",
                warmup_steps=24_000,
                initial_fraction=2e-5,
                final_fraction=0.0,
                # Of all parameters, moving averages and norms among them.
                weight_decay=0.1,
                weight_decays=((".*", 0.1),),
                clip_norm=0.25,
            ),
            train=TrainConfig(
                steps=400_000,
                batch_size=36,
                eval_every=2_000,
                checkpoint_every=2_000,
                log_every=100,
                best_metric="loss",
            ),
        )
    )
