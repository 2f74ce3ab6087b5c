"""SST-2 (GLUE): does a film review speak well of the film? Measured by accuracy.

    python -m finetune --config=configs/finetune/sst2.py --config.init_from=runs/base \\
        --workdir=runs/sst2

Reads glue/sst2:2.0.0 of TFDS, which `tfds build glue/sst2` prepares; or tables with the same
columns: --config.task.train=train.tsv --config.task.validation=dev.tsv. One accelerator is meant;
no score of ours to expect yet.
"""

import ml_collections

from finetune.recipes import glue


def get_config() -> ml_collections.ConfigDict:
    return glue("sst2", steps=10000)
