"""Pathfinder (Long Range Arena): SPADE, windows with S4 beside the bottom one.

    python -m spade_jax.data.lra.pathfinder --output=lra/pathfinder32
    python -m pretrain --config=configs/lra/pathfinder_spade_window.py \\
        --workdir=runs/pathfinder_spade_window

For one accelerator. It has not been run, so no time and no score of ours stand here.
"""

import ml_collections

from pretrain.lra_recipes import spade_window


def get_config() -> ml_collections.ConfigDict:
    return spade_window("pathfinder")
