"""QNLI (GLUE): does a sentence answer a question? Measured by accuracy.

    python -m finetune --config=configs/finetune/qnli.py --config.init_from=runs/base \\
        --workdir=runs/qnli

Reads glue/qnli:2.0.0 of TFDS, which `tfds build glue/qnli` prepares; or tables with the same
columns: --config.task.train=train.tsv --config.task.validation=dev.tsv. One accelerator is meant;
no score of ours to expect yet.
"""

import ml_collections

from finetune.recipes import glue


def get_config() -> ml_collections.ConfigDict:
    return glue("qnli", steps=10000)
