"""MEGA's golden files of whole encoders as classifiers of ours."""

from typing import Any

import numpy as np
from authors import assign
from flax import nnx
from mega_golden import NORM, NORMS, MegaLayer

from spade_jax.config import AttentionConfig, ClassifierConfig, StackConfig
from spade_jax.models.build import builder


class MegaEncoder(MegaLayer):
    """A golden file of an encoder, and our classifier with its parameters."""

    def __post_init__(self) -> None:
        super().__post_init__()
        # They do not name their bias.
        self.config = {"rel_pos_bias": "simple", **self.config}

    def classifier(self) -> Any:
        """Its head, which the file has not, is one map of ones."""
        config = self.config
        model = ClassifierConfig(
            d_model=self.widths["d_model"],
            d_ff=config["ffn_hidden_dim"],
            vocab_size=None if config["embedding_type"] == "linear" else config["vocab"],
            classes=2,
            encoder=StackConfig(f"{config['layers']}*mega", relative_bias="none"),
            mixers={"mega": self.mega()},
            attention=AttentionConfig(num_heads=1),
            norm=NORMS[config["norm_type"]],
            norm_epsilon=1e-5,
            norm_placement="pre" if config["prenorm"] else "post",
            final_norm=config["prenorm"],
            feed_forward="silu",
            feed_forward_bias=True,
        )
        head = {"head/first/kernel": np.ones((model.d_model, 2)), "head/first/bias": np.zeros(2)}
        return assign(builder(model)(nnx.Rngs(0)), self.parameters("param/") | head)

    def parameters(self, prefix: str) -> dict[str, np.ndarray]:
        """Our arrays by name: parameters ("param/") or their gradients ("grad/")."""
        theirs = self.golden.group(prefix)
        found = self._stacked([self.ours(f"{prefix}layers.{i}.") for i in self._layers])
        for ours, name in (
            ("embedding", "embed_tokens.embed.weight"),
            ("embedding/weight", "embed_tokens.weight"),
            ("embedding/bias", "embed_tokens.bias"),
        ):
            if name in theirs:
                found[ours] = theirs[name]
        return found | self._final_norm(prefix)

    def all_statistics(self) -> dict[str, np.ndarray]:
        """What a training call leaves of batch norms, by our names."""
        layers = [self.statistics(f"after/layers.{i}.") for i in self._layers]
        return self._stacked(layers) | self._final_norm("after/")

    @property
    def _layers(self) -> range:
        return range(self.config["layers"])

    def _stacked(self, layers: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        return {
            f"encoder/layers_0/{name}": np.stack([layer[name] for layer in layers])
            for name in layers[0]
        }

    def _final_norm(self, prefix: str) -> dict[str, np.ndarray]:
        theirs = self.golden.group(f"{prefix}final_norm.norm.")
        names = {part: array for part, array in NORM.items() if array in theirs}
        return {f"encoder/final_norm/{part}": theirs[array] for part, array in names.items()}
