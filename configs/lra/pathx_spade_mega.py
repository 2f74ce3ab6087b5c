"""Path-X (Long Range Arena): SPADE, MEGA's chunks with S4 beside the bottom one.

    python -m spade_jax.data.lra.pathfinder --output=lra/pathfinder128 --size=128
    python -m pretrain --config=configs/lra/pathx_spade_mega.py --workdir=runs/pathx_spade_mega

For one accelerator. It has not been run, so no time and no score of ours stand here.
"""

import ml_collections

from pretrain.lra_recipes import spade_mega


def get_config() -> ml_collections.ConfigDict:
    return spade_mega("pathx")
