"""Multi-News: several articles on one event, and a summary. Measured by ROUGE.

    python -m finetune --config=configs/finetune/multi_news.py --config.init_from=runs/base \\
        --workdir=runs/multi_news

Reads multi_news:2.1.0 of TFDS, which `tfds build multi_news` prepares; or tables with the same
columns (--config.task.train and so on). Several accelerators are meant; no score of ours to expect
yet. LongT5 of base size has ROUGE-1 46.01, from the first 4,096 tokens.
"""

import ml_collections

from finetune.recipes import summarization


def get_config() -> ml_collections.ConfigDict:
    return summarization("multi_news", input_length=8192, steps=10000)
