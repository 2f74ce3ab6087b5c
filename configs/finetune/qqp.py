"""QQP (GLUE): do two questions ask the same? Measured by F1 and accuracy.

    python -m finetune --config=configs/finetune/qqp.py --config.init_from=runs/base \\
        --workdir=runs/qqp

Reads glue/qqp:2.0.0 of TFDS, which `tfds build glue/qqp` prepares; or tables with the same columns:
--config.task.train=train.tsv --config.task.validation=dev.tsv. One accelerator is meant; no score
of ours to expect yet.
"""

import ml_collections

from finetune.recipes import glue


def get_config() -> ml_collections.ConfigDict:
    return glue("qqp", steps=20000)
