"""Text, IMDB reviews (Long Range Arena): S4, as its authors' code has it now.

    tfds build imdb_reviews
    python -m pretrain --config=configs/lra/text_s4.py --workdir=runs/text_s4

Its authors have 86.5. For one accelerator. It has not been run, so no time and no score of ours
stand here.
"""

import ml_collections

from pretrain.lra_recipes import s4


def get_config() -> ml_collections.ConfigDict:
    return s4("text")
