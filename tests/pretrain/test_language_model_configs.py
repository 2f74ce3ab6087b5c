"""The language models of configs/: what can be known of them without a device that trains them."""

from pathlib import Path

import jax
import pytest
from flax import nnx

from pretrain.config import PretrainConfig
from pretrain.learning import with_vocabulary
from pretrain.objectives import objective_of
from spade_jax.config.file import read_config
from spade_jax.models.build import builder
from spade_jax.training.config import MeshConfig
from spade_jax.training.schedule import schedule_shape
from spade_jax.training.sharding import make_mesh

CONFIGS = Path(__file__).parents[2] / "configs" / "pretrain"
MILLIONS = {
    # A Transformer of this size has 247 million parameters with the same vocabulary
    # (arXiv 1809.10853); S4, the map that brings it in and relative biases come on top.
    "lm_wikitext103": 249.1,
    "lm_mega_wikitext103": 252,  # arXiv 2209.10655, table 4
    "lm_masformer": 1300,  # arXiv 2310.12442
    "lm_quickstart": 0.73,
}


def configuration(name):
    config = read_config(str(CONFIGS / f"{name}.py"), {}, PretrainConfig, "pretrain")
    # The others' vocabularies have to be trained first.
    return with_vocabulary(config) if name == "lm_quickstart" else config


def test_every_language_model_is_among_these():
    assert {path.stem for path in CONFIGS.glob("lm_*.py")} == set(MILLIONS)


@pytest.mark.parametrize("name", MILLIONS)
def test_sizes(name):
    config = configuration(name)
    model = nnx.eval_shape(lambda: builder(config.model)(nnx.Rngs(0)))
    count = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    assert count / 1e6 == pytest.approx(MILLIONS[name], rel=0.01)
    objective_of(config).check(config.model, config.data.lengths, make_mesh(MeshConfig()))


def test_the_authors_recipe():
    config = configuration("lm_wikitext103")
    assert config.train.batch_size * config.data.input_length == 73_728
    rate = schedule_shape(config.optimizer, config.train.steps)
    assert float(rate(0)) == pytest.approx(1e-7, abs=1e-4)
    assert float(rate(15_999)) == pytest.approx(1.0)
    # One whole cosine.
    assert float(rate(16_000 + 135_000)) == pytest.approx(0.5, abs=1e-3)
    assert float(rate(285_999)) == pytest.approx(1e-4)
    assert min(float(rate(count)) for count in (285_000, 285_999)) == float(rate(285_999))
