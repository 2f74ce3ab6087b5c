"""Text, IMDB reviews (Long Range Arena): MEGA-chunk, as published.

    tfds build imdb_reviews
    python -m pretrain --config=configs/lra/text_mega.py --workdir=runs/text_mega

Its authors have 90.19. For one accelerator. It has not been run, so no time and no score of ours
stand here.
"""

import ml_collections

from pretrain.lra_recipes import mega


def get_config() -> ml_collections.ConfigDict:
    return mega("text")
