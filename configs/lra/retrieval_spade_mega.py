"""Retrieval (Long Range Arena): SPADE, MEGA's chunks with S4 beside the bottom one.

    python -m pretrain --config=configs/lra/retrieval_spade_mega.py \\
        --workdir=runs/retrieval_spade_mega

Reads the Long Range Arena's own files, new_aan_pairs.train.tsv and so on, in lra/retrieval. For one
accelerator. It has not been run, so no time and no score of ours stand here.
"""

import ml_collections

from pretrain.lra_recipes import spade_mega


def get_config() -> ml_collections.ConfigDict:
    return spade_mega("retrieval")
