"""PubMed: papers and their abstracts. Measured by ROUGE.

    python -m finetune --config=configs/finetune/pubmed.py --config.init_from=runs/base \\
        --workdir=runs/pubmed

Reads scientific_papers/pubmed:1.1.1 of TFDS, which `tfds build scientific_papers/pubmed` prepares;
or tables with the same columns (--config.task.train and so on). Several accelerators are meant; no
score of ours to expect yet. LongT5 of base size has ROUGE-1 47.77, from the first 4,096 tokens.
"""

import ml_collections

from finetune.recipes import summarization


def get_config() -> ml_collections.ConfigDict:
    return summarization("pubmed", input_length=16384, steps=20000)
