"""The authors' language model on WikiText-103: 16 layers, S4 beside the lowest one's windows.

WikiText-103 (arXiv 1609.07843) in words: `wiki.train.tokens` and its two sisters, of which each
line is a document here. Its <unk> must be a word like others; number them all by frequency:

    for split in train valid test; do
        sed 's/<unk>/@unk@/g' wiki.$split.tokens > wikitext/$split.txt
    done
    python -m spade_jax.data.train_vocabulary --input=wikitext/train.txt --model_type=word \\
        --size=267744 --max_bytes=1000000000 --output=wikitext/words.model
    python -m pretrain --config=configs/pretrain/lm_wikitext103.py --workdir=runs/wikitext103
    python -m pretrain.perplexity --checkpoint=runs/wikitext103 --kind=text \\
        --input=wikitext/test.txt --protocol=sliding --min_context=2560

For accelerators, on one host: several would read every so many lines each, and a text is its lines
in their order. An update has 73,728 tokens, which the authors had on 8 devices. It has not been
run, so no time and no score stand here. A Transformer of this size with the same vocabulary has a
perplexity of 18.66 with context before each window, and 20.51 by blocks (arXiv 1809.10853).
"""

import ml_collections

from pretrain.config import PretrainConfig
from spade_jax.config import AdaptiveConfig, AttentionConfig, DecoderOnlyConfig, StackConfig
from spade_jax.config.file import to_config_dict
from spade_jax.data.config import SourceConfig, TextBlocksConfig
from spade_jax.mixers import S4, Window
from spade_jax.training.config import OptimizerConfig, TrainConfig


def get_config() -> ml_collections.ConfigDict:
    return to_config_dict(
        PretrainConfig(
            model=DecoderOnlyConfig(
                # 267,735 words with that for the end, filled up.
                vocab_size=267_744,
                d_model=1024,
                d_ff=4096,
                decoder=StackConfig("s4+window:concat, 15*window"),
                mixers={"s4": S4(), "window": Window(511)},
                attention=AttentionConfig(num_heads=8, scale_queries=True),
                adaptive=AdaptiveConfig((20_000, 60_000), dropout_rate=0.2),
                scale_embeddings=True,
                norm="layer",
                norm_epsilon=1e-5,
                final_norm=False,
                feed_forward="relu",
                feed_forward_bias=True,
                dropout_rate=0.3,
                attention_dropout_rate=0.1,
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
                input_length=3072,
                # Lines in their order: only blocks of them are shuffled.
                document_shuffle_buffer=1,
            ),
            optimizer=OptimizerConfig(
                name="nag",
                momentum=0.99,
                learning_rate=1.0,
                schedule="cosine_restarts",
                # The last update is the end of the first cosine.
                period=270_001,
                period_growth=2,
                period_shrink=0.75,
                warmup_steps=16_000,
                initial_fraction=1e-7,
                final_fraction=1e-4,
                weight_decay=0.0,
                clip_norm=0.1,
                # As the authors say; their scheduler sets it back to that of all others.
                group_rates=(("ssm", 1e-3),),
            ),
            train=TrainConfig(
                steps=286_000,
                batch_size=24,
                eval_every=2_000,
                checkpoint_every=2_000,
                log_every=100,
                best_metric="loss",
            ),
        )
    )
