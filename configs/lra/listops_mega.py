"""ListOps (Long Range Arena): MEGA-chunk, as published.

    python -m spade_jax.data.lra.listops --output=lra/listops
    python -m pretrain --config=configs/lra/listops_mega.py --workdir=runs/listops_mega

Its authors have 58.76. For one accelerator. It has not been run, so no time and no score of ours
stand here.
"""

import ml_collections

from pretrain.lra_recipes import mega


def get_config() -> ml_collections.ConfigDict:
    return mega("listops")
