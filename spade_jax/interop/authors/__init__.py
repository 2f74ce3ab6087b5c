"""The authors' weights, both ways: their encoder-decoder, and the layers of their language model.

config, weights, kind = read_checkpoint(path)
model = model_config(config, weights.shapes)
imported = to_ours(weights, model)
write_checkpoint(folder, config, to_theirs(imported.params, imported.kept, model))
"""

from spade_jax.interop.authors.config import model_config
from spade_jax.interop.authors.convert import Imported, our_id, to_ours, to_theirs
from spade_jax.interop.authors.files import read_checkpoint, write_checkpoint
from spade_jax.interop.authors.pairs import BOS_ID, EOS_ID, PAD_ID
from spade_jax.interop.authors.report import Report, compare
from spade_jax.interop.authors.their_config import authors_config

__all__ = [
    "BOS_ID",
    "EOS_ID",
    "PAD_ID",
    "Imported",
    "Report",
    "authors_config",
    "compare",
    "model_config",
    "our_id",
    "read_checkpoint",
    "to_ours",
    "to_theirs",
    "write_checkpoint",
]
