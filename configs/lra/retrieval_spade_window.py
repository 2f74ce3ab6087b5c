"""Retrieval (Long Range Arena): SPADE, windows with S4 beside the bottom one.

    python -m pretrain --config=configs/lra/retrieval_spade_window.py \\
        --workdir=runs/retrieval_spade_window

Reads the Long Range Arena's own files, new_aan_pairs.train.tsv and so on, in lra/retrieval. For one
accelerator. It has not been run, so no time and no score of ours stand here.
"""

import ml_collections

from pretrain.lra_recipes import spade_window


def get_config() -> ml_collections.ConfigDict:
    return spade_window("retrieval")
