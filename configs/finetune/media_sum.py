"""MediaSum: interviews, each turn behind its speaker, and their summaries. Measured by ROUGE.

    python -m finetune --config=configs/finetune/media_sum.py --config.init_from=runs/base \\
        --workdir=runs/media_sum

Reads media_sum:1.0.0 of TFDS, which `tfds build media_sum` prepares; or tables with the same
columns (--config.task.train and so on). Several accelerators are meant; no score of ours to expect
yet. LongT5 of base size has ROUGE-1 35.09.
"""

import ml_collections

from finetune.recipes import summarization


def get_config() -> ml_collections.ConfigDict:
    return summarization("media_sum", input_length=4096, steps=20000)
