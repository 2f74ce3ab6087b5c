"""MNLI (GLUE): does the premise entail the hypothesis, contradict it, or neither? Measured by
accuracy, on sentences of the training set's genres (matched) and of others (mismatched).

    python -m finetune --config=configs/finetune/mnli.py --config.init_from=runs/base \\
        --workdir=runs/mnli

Reads glue/mnli:2.0.0 of TFDS, which `tfds build glue/mnli` prepares; or tables with the same
columns: --config.task.train=train.tsv --config.task.validation='dev{part}.tsv'. One accelerator is
meant; no score of ours to expect yet.
"""

import ml_collections

from finetune.recipes import glue


def get_config() -> ml_collections.ConfigDict:
    return glue("mnli", steps=20000)
