"""ListOps (Long Range Arena): S4, as its authors' code has it now.

    python -m spade_jax.data.lra.listops --output=lra/listops
    python -m pretrain --config=configs/lra/listops_s4.py --workdir=runs/listops_s4

Its authors have 59.5. For one accelerator. It has not been run, so no time and no score of ours
stand here.
"""

import ml_collections

from pretrain.lra_recipes import s4


def get_config() -> ml_collections.ConfigDict:
    return s4("listops")
