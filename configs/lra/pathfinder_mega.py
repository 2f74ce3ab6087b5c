"""Pathfinder (Long Range Arena): MEGA-chunk, as published.

    python -m spade_jax.data.lra.pathfinder --output=lra/pathfinder32
    python -m pretrain --config=configs/lra/pathfinder_mega.py --workdir=runs/pathfinder_mega

Its authors have 94.41. For one accelerator. It has not been run, so no time and no score of ours
stand here.
"""

import ml_collections

from pretrain.lra_recipes import mega


def get_config() -> ml_collections.ConfigDict:
    return mega("pathfinder")
