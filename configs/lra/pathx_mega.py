"""Path-X (Long Range Arena): MEGA-chunk, as published.

    python -m spade_jax.data.lra.pathfinder --output=lra/pathfinder128 --size=128
    python -m pretrain --config=configs/lra/pathx_mega.py --workdir=runs/pathx_mega

Its authors have 93.81. For one accelerator. It has not been run, so no time and no score of ours
stand here.
"""

import ml_collections

from pretrain.lra_recipes import mega


def get_config() -> ml_collections.ConfigDict:
    return mega("pathx")
