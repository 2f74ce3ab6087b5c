"""CNN/DailyMail: news articles and their highlights. Measured by ROUGE.

    python -m finetune --config=configs/finetune/cnn_dailymail.py --config.init_from=runs/base \\
        --workdir=runs/cnn_dailymail

Reads cnn_dailymail:3.4.0 of TFDS, which `tfds build cnn_dailymail` prepares; or tables with the
same columns (--config.task.train and so on). Several accelerators are meant; no score of ours to
expect yet. LongT5 of base size has ROUGE-1 42.15.
"""

import ml_collections

from finetune.recipes import summarization


def get_config() -> ml_collections.ConfigDict:
    return summarization("cnn_dailymail", input_length=4096, steps=20000)
