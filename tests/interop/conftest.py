import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

from spade_jax.interop.run_folder import write_run
from spade_jax.mixers import S4, Window
from spade_jax.models.build import builder
from spade_jax.models.presets import preset


def small_model(flavour="t5", *, vocab_size=300, encoder="s4+window:concat, 2*window", **changes):
    """Two or three small layers in each stack."""
    model = preset(
        "tiny",
        flavour,
        vocab_size=vocab_size,
        d_model=32,
        d_ff=48,
        mixers={"s4": S4(state_size=8, chunk_length=16), "window": Window(5)},
    )
    attention = dataclasses.replace(model.attention, num_heads=2, head_dim=None)
    encoder = dataclasses.replace(model.encoder, layers=encoder)
    decoder = dataclasses.replace(model.decoder, layers="2*full")
    if decoder.max_positions is not None:
        decoder = dataclasses.replace(decoder, max_positions=64)
    settings = dict(attention=attention, encoder=encoder, decoder=decoder) | changes
    return dataclasses.replace(model, **settings)


def random_params(model, seed=0):
    """Of which none is as it begins: norms' scales and zeros, too."""
    params = nnx.to_pure_dict(nnx.state(builder(model)(nnx.Rngs(seed)), nnx.Param))
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    moved = [x + 0.05 * jax.random.normal(k, x.shape, x.dtype) for x, k in zip(leaves, keys)]
    return jax.tree.unflatten(structure, [np.asarray(x) for x in moved])


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A run's folder, of a vocabulary of bytes."""
    folder = tmp_path_factory.mktemp("exports") / "run"
    model = small_model()
    write_run(
        folder, model, random_params(model), vocabulary="bytes", extra_ids=20, input_length=48
    )
    return folder
