"""Goes on pre-training with the parameters of another run, such as a T5 that
`python -m spade_jax.interop.from_hf` has made one of.

    python -m pretrain --config=configs/pretrain/further.py --config.init_from=runs/t5 \\
        --config.data.vocabulary=runs/t5/spiece.model --workdir=runs/further \\
        --config.data.sources.0.train='my/train-*.txt' \\
        --config.data.sources.0.validation=my/validation.txt

The model is that run's. Adafactor at T5's rate for going on, 0.001; its slots begin anew. The time
it takes and the loss to expect depend on model and text; one accelerator is meant.
"""

import ml_collections

from pretrain.config import PretrainConfig
from spade_jax.config.file import to_config_dict
from spade_jax.data.config import DataConfig, SourceConfig
from spade_jax.training.config import OptimizerConfig, TrainConfig


def get_config() -> ml_collections.ConfigDict:
    return to_config_dict(
        PretrainConfig(
            model=None,
            init_from="runs/t5",
            dtype="bfloat16",
            data=DataConfig(
                sources=(
                    SourceConfig(
                        kind="text", train="text/train*.txt", validation="text/validation*.txt"
                    ),
                ),
                vocabulary="runs/t5/spiece.model",
                input_length=512,
            ),
            optimizer=OptimizerConfig(
                name="adafactor",
                learning_rate=1e-3,
                schedule="constant",
                warmup_steps=0,
                weight_decay=0.0,
                clip_norm=None,
            ),
            train=TrainConfig(
                steps=20_000,
                batch_size=128,
                eval_every=1000,
                eval_batches=50,
                checkpoint_every=1000,
                log_every=50,
            ),
        )
    )
