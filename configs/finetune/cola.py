"""CoLA (GLUE): is a sentence acceptable English? Measured by Matthews' correlation.

    python -m finetune --config=configs/finetune/cola.py --config.init_from=runs/base \\
        --workdir=runs/cola

Reads glue/cola:2.0.0 of TFDS, which `tfds build glue/cola` prepares; or tables with the same
columns: --config.task.train=train.tsv --config.task.validation=dev.tsv. The official ones need a
header, see docs/finetuning.md. One accelerator is meant; no score of ours to expect yet.
"""

import ml_collections

from finetune.recipes import glue


def get_config() -> ml_collections.ConfigDict:
    return glue("cola", steps=5000)
