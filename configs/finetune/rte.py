"""RTE (GLUE): does one sentence entail the other? Measured by accuracy.

    python -m finetune --config=configs/finetune/rte.py --config.init_from=runs/base \\
        --workdir=runs/rte

Reads glue/rte:2.0.0 of TFDS, which `tfds build glue/rte` prepares; or tables with the same columns:
--config.task.train=train.tsv --config.task.validation=dev.tsv. One accelerator is meant; no score
of ours to expect yet.
"""

import ml_collections

from finetune.recipes import glue


def get_config() -> ml_collections.ConfigDict:
    return glue("rte", steps=3000)
