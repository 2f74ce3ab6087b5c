"""Pathfinder (Long Range Arena): S4, as its authors' code has it now.

    python -m spade_jax.data.lra.pathfinder --output=lra/pathfinder32
    python -m pretrain --config=configs/lra/pathfinder_s4.py --workdir=runs/pathfinder_s4

Its authors have 94.0. For one accelerator. It has not been run, so no time and no score of ours
stand here.
"""

import ml_collections

from pretrain.lra_recipes import s4


def get_config() -> ml_collections.ConfigDict:
    return s4("pathfinder")
