"""Your own table of inputs and targets: TSV, CSV, JSON lines or Parquet.

    python -m finetune --config=configs/finetune/local_pairs.py --config.init_from=runs/base \\
        --workdir=runs/mine --config.task.train=train.csv \\
        --config.task.inputs="('text',)" --config.task.target=summary

A tenth of the rows is held out, or --config.task.validation=validation.csv is another table. With
labels the targets are classes: --config.task.labels="('negative', 'positive')". See
docs/finetuning.md. The time it takes and the score to expect depend on the data.
"""

import ml_collections

from finetune.config import FinetuneConfig
from spade_jax.config.file import to_config_dict
from spade_jax.data.task_config import TaskConfig
from spade_jax.training.config import OptimizerConfig, TrainConfig


def get_config() -> ml_collections.ConfigDict:
    return to_config_dict(
        FinetuneConfig(
            init_from="runs/base",
            task=TaskConfig(
                train="train.tsv",
                validation="10%",
                inputs=("input",),
                target="target",
                input_length=1024,
                target_length=128,
            ),
            dropout_rate=0.1,
            optimizer=OptimizerConfig(learning_rate=1e-3, schedule="linear", warmup_steps=100),
            train=TrainConfig(
                steps=2000,
                batch_size=16,
                eval_every=200,
                checkpoint_every=200,
                keep=1,
                best_metric="score",
                patience=5,
            ),
            eval_examples=200,
        )
    )
