"""Attention of SPADE: to a window, to all of the sequence, or to the encoder's output.

Shape letters: b batch, l length, d width, h heads, k head size.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .configuration_spade import SpadeConfig
from .state_space_spade import Slot

_LOWEST = torch.finfo(torch.float32).min


class Seen:
    """What the tokens of a call can see.

    Attributes:
      keys: bool [b, start + l], False at padding.
      new: those of this call, [b, l].
      start: how many tokens went before.
      bias: the table of biases that layers share, or None.
    """

    def __init__(self, keys: Tensor, start: int, bias: "RelativeBias | None"):
        self.keys, self.new, self.start, self.bias = keys, keys[:, start:], start, bias


class RelativeBias(nn.Module):
    """A bias for each head and bucket of relative positions (T5, arXiv 1910.10683)."""

    def __init__(self, config: SpadeConfig, stack: dict[str, Any], causal: bool):
        super().__init__()
        self.starts, self.causal = stack["bucket_starts"], causal
        self.table = nn.Parameter(torch.zeros(config.num_buckets, config.num_heads))

    def forward(self, relative: Tensor) -> Tensor:
        """Positions of keys less those of queries, int [q, j] -> float32 [h, q, j]."""
        starts = torch.tensor(self.starts, device=relative.device)
        distance = (-relative).clamp(min=0) if self.causal else relative.abs()
        buckets = torch.bucketize(distance, starts, right=True) - 1
        if not self.causal:
            buckets = buckets + (relative > 0) * len(self.starts)
        return functional.embedding(buckets, self.table.float()).permute(2, 0, 1)


class Attention(nn.Module):
    """Softmax attention: to a window, to all of the sequence, or to the encoder's output."""

    def __init__(self, config: SpadeConfig, radius: int | None = None, causal: bool = False):
        super().__init__()
        d, width = config.d_model, config.num_heads * config.head_dim
        self.heads, self.dropout_rate = config.num_heads, config.attention_dropout_rate
        self.scale = config.head_dim**-0.5 if config.scale_queries else 1.0
        self.radius, self.causal = radius, causal
        self.query = nn.Linear(d, width, bias=False)
        self.key = nn.Linear(d, width, bias=False)
        self.value = nn.Linear(d, width, bias=False)
        self.output = nn.Linear(width, d, bias=False)
        self.bias: RelativeBias | None = None

    def forward(self, x: Tensor, seen: Seen, slot: Slot | None) -> Tensor:
        """[b, l, d] -> [b, l, d], within a sequence."""
        query, key, value = self.queries(x), self.split(self.key(x)), self.split(self.value(x))
        if slot is not None:
            key, value = slot.extend(key, value)
            if self.radius is not None:
                slot.put(key[:, :, -self.radius :], value[:, :, -self.radius :])
        bias = seen.bias if self.bias is None else self.bias
        if self.radius is not None and seen.start == 0:
            return self.merge(self.windows(query, key, value, seen.keys, bias))
        length, keys = query.shape[2], key.shape[2]
        place = torch.arange(seen.start + length, device=x.device)
        relative = place[-keys:][None] - place[seen.start :, None]
        visible = self.reached(relative) & seen.keys[:, None, None, -keys:]
        return self.merge(self.attend(query, key, value, visible, bias and bias(relative)))

    def cross(self, x: Tensor, encoded: Tensor, mask: Tensor, slot: Slot | None) -> Tensor:
        """[b, l, d] -> [b, l, d], to the encoder's output [b, m, d]; mask bool [b, m]."""
        if slot is not None and slot.is_initialized:
            key, value = slot.keys, slot.values
        else:
            key, value = self.split(self.key(encoded)), self.split(self.value(encoded))
            if slot is not None:
                slot.put(key, value)
        visible = mask[:, None, None]
        return self.merge(self.attend(self.queries(x), key, value, visible, None))

    def windows(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, bias: RelativeBias | None
    ) -> Tensor:
        """Blocks of tokens attend to themselves and their neighbours: [b, h, l, k]."""
        length, radius = query.shape[2], self.radius
        t = min(radius, length)
        blocks, after = -(-length // t), 0 if self.causal else t
        rest = blocks * t - length

        def around(x: Tensor) -> Tensor:
            """[b, h, l, k] -> [b, h, blocks, 2t or 3t, k]."""
            x = functional.pad(x, (0, 0, t, rest + after))
            return x.unfold(2, 2 * t + after, t).transpose(3, 4)

        query = functional.pad(query, (0, 0, 0, rest)).unflatten(2, (blocks, t))
        place = torch.arange(2 * t + after, device=query.device)
        relative = place[None] - place[t : 2 * t, None]
        visible = around(mask[:, None, :, None]).transpose(3, 4) & self.reached(relative)
        of_bias = None if bias is None else bias(relative)[:, None]
        y = self.attend(query, around(key), around(value), visible, of_bias)
        return y.flatten(2, 3)[:, :, :length]

    def reached(self, relative: Tensor) -> Tensor:
        """Which keys a query may see by their positions."""
        visible = relative <= 0 if self.causal else relative == relative
        return visible if self.radius is None else visible & (relative.abs() <= self.radius)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, visible: Tensor, bias: Tensor | None
    ) -> Tensor:
        """[..., q, k] to [..., j, k], with masks and biases [..., q, j]; 0 where none is seen."""
        scores = query.float() @ key.float().transpose(-1, -2)
        if bias is not None:
            scores = scores + bias
        shares = scores.masked_fill(~visible, _LOWEST).softmax(-1).masked_fill(~visible, 0.0)
        shares = functional.dropout(shares, self.dropout_rate, self.training)
        return shares.to(value.dtype) @ value

    def queries(self, x: Tensor) -> Tensor:
        return self.split(self.query(x) * self.scale)

    def split(self, x: Tensor) -> Tensor:
        """[b, l, h k] -> [b, h, l, k]."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def merge(self, y: Tensor) -> Tensor:
        return self.output(y.transpose(1, 2).flatten(2))
