"""Retrieval (Long Range Arena): MEGA-chunk, as published.

    python -m pretrain --config=configs/lra/retrieval_mega.py --workdir=runs/retrieval_mega

Reads the Long Range Arena's own files, new_aan_pairs.train.tsv and so on, in lra/retrieval. Its
authors have 90.97. For one accelerator. It has not been run, so no time and no score of ours stand
here.
"""

import ml_collections

from pretrain.lra_recipes import mega


def get_config() -> ml_collections.ConfigDict:
    return mega("retrieval")
