"""STS-B (GLUE): how alike are two sentences, from 0 to 5? Measured by Pearson's and Spearman's
correlation. The target is the score to the nearest 0.2, as text.

    python -m finetune --config=configs/finetune/stsb.py --config.init_from=runs/base \\
        --workdir=runs/stsb

Reads glue/stsb:2.0.0 of TFDS, which `tfds build glue/stsb` prepares; or tables with the same
columns: --config.task.train=train.tsv --config.task.validation=dev.tsv. One accelerator is meant;
no score of ours to expect yet.
"""

import ml_collections

from finetune.recipes import glue


def get_config() -> ml_collections.ConfigDict:
    return glue("stsb", steps=4000)
