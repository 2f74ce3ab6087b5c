"""Retrieval (Long Range Arena): S4, as its authors' code has it now.

    python -m pretrain --config=configs/lra/retrieval_s4.py --workdir=runs/retrieval_s4

Reads the Long Range Arena's own files, new_aan_pairs.train.tsv and so on, in lra/retrieval. Its
authors have 91.0. For one accelerator. It has not been run, so no time and no score of ours stand
here.
"""

import ml_collections

from pretrain.lra_recipes import s4


def get_config() -> ml_collections.ConfigDict:
    return s4("retrieval")
