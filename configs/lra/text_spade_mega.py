"""Text, IMDB reviews (Long Range Arena): SPADE, MEGA's chunks with S4 beside the bottom one.

    tfds build imdb_reviews
    python -m pretrain --config=configs/lra/text_spade_mega.py --workdir=runs/text_spade_mega

For one accelerator. It has not been run, so no time and no score of ours stand here.
"""

import ml_collections

from pretrain.lra_recipes import spade_mega


def get_config() -> ml_collections.ConfigDict:
    return spade_mega("text")
