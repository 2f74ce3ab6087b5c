"""MRPC (GLUE): do two sentences of the news say the same? Measured by F1 and accuracy.

    python -m finetune --config=configs/finetune/mrpc.py --config.init_from=runs/base \\
        --workdir=runs/mrpc

Reads glue/mrpc:2.0.0 of TFDS, which `tfds build glue/mrpc` prepares; or tables with the same
columns: --config.task.train=train.tsv --config.task.validation=dev.tsv. One accelerator is meant;
no score of ours to expect yet.
"""

import ml_collections

from finetune.recipes import glue


def get_config() -> ml_collections.ConfigDict:
    return glue("mrpc", steps=4000)
