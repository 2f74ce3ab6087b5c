"""A small SPADE on text of your own, such as WikiText: byte by byte, so no vocabulary is needed.

Files are UTF-8 with one document on each line, plain or gzip, in two sets that do not overlap:

    python -m pretrain --config=configs/pretrain/text.py --workdir=runs/text \\
        --config.data.sources.0.train='my/train-*.txt.gz' \\
        --config.data.sources.0.validation=my/validation.txt

One document in each file is `--config.data.sources.0.kind=files`, JSON lines are `jsonl`. The time
it takes and the loss to expect depend on the text; one accelerator is meant.
"""

import ml_collections

from pretrain.config import PretrainConfig
from spade_jax.config.file import to_config_dict
from spade_jax.data.config import DataConfig, DenoiserConfig, SourceConfig
from spade_jax.models.presets import preset
from spade_jax.training.config import OptimizerConfig, TrainConfig


def get_config() -> ml_collections.ConfigDict:
    return to_config_dict(
        PretrainConfig(
            model=preset("small", dtype="bfloat16", dropout_rate=0.1),
            data=DataConfig(
                sources=(
                    SourceConfig(
                        kind="text", train="text/train*.txt", validation="text/validation*.txt"
                    ),
                ),
                input_length=1024,
                # Bytes are short: spans of about four words.
                denoisers=(DenoiserConfig(noise_density=0.15, mean_span_length=20.0),),
            ),
            optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=1000),
            train=TrainConfig(
                steps=50_000,
                batch_size=64,
                eval_every=1000,
                eval_batches=50,
                checkpoint_every=1000,
                log_every=50,
            ),
        )
    )
