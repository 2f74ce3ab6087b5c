"""All of GLUE at once: a mixture of its nine tasks, each by its number of examples.

    python -m finetune --config=configs/finetune/glue.py --config.init_from=runs/base \\
        --workdir=runs/glue

Reads the configurations of TFDS's glue:2.0.0, each prepared with `tfds build glue/cola` and so on;
or tables in which "{task}" stands for a task: --config.task.train='GLUE/{task}/train.tsv'
--config.task.validation='GLUE/{task}/dev{part}.tsv', and "{part}" for MNLI's "_matched" and
"_mismatched". Each task is evaluated by itself; `score` is the mean over tasks, GLUE's. One
accelerator is meant; no score of ours to expect yet.
"""

import ml_collections

from finetune.recipes import glue


def get_config() -> ml_collections.ConfigDict:
    return glue("glue", steps=50_000)
