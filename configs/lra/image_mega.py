"""Image, CIFAR-10 in grey (Long Range Arena): MEGA-chunk, as published.

    tfds build cifar10
    python -m pretrain --config=configs/lra/image_mega.py --workdir=runs/image_mega

Its authors have 85.80. For one accelerator. It has not been run, so no time and no score of ours
stand here.
"""

import ml_collections

from pretrain.lra_recipes import mega


def get_config() -> ml_collections.ConfigDict:
    return mega("image")
