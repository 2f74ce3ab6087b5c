"""WNLI (GLUE): does a sentence with its pronoun resolved follow? Measured by accuracy. 635
examples, whose validation set contradicts them: most models end at the majority class.

    python -m finetune --config=configs/finetune/wnli.py --config.init_from=runs/base \\
        --workdir=runs/wnli

Reads glue/wnli:2.0.0 of TFDS, which `tfds build glue/wnli` prepares; or tables with the same
columns: --config.task.train=train.tsv --config.task.validation=dev.tsv. One accelerator is meant;
no score of ours to expect yet.
"""

import ml_collections

from finetune.recipes import glue


def get_config() -> ml_collections.ConfigDict:
    return glue("wnli", steps=1000)
