"""Linear state spaces: S4 (arXiv 2111.00396) and S4D (2206.11893), float32 whatever the model is.

    x_i = A x_{i-1} + B u_i,    y_i = C x_i + D u_i,    K_j = C A^j B

Over whole sequences y is u convolved with K, which Fourier transforms do in time and memory linear
in the length; the encoder's has a kernel for what is to the right as well, from distance 1 on.

Shape letters: b batch, l length, d features, n state size, s directions.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.cache_utils import DynamicLayer

from .configuration_spade import SpadeConfig


class Slot(DynamicLayer):
    """What is kept of the tokens before: keys and values, or a state space's state and inputs."""

    is_croppable = False  # States forget what was before.

    def put(self, keys: Tensor, values: Tensor) -> None:
        """In place of what was there; each has a row for each sequence."""
        self.keys, self.values = keys, values
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Puts them behind those that are there, [b, h, l, k] each; returns all."""
        if self.is_initialized:
            keys = torch.cat([self.keys, keys], dim=2)
            values = torch.cat([self.values, values], dim=2)
        self.put(keys, values)
        return keys, values


# A transition A is kept as A - I: [d, n, n] over real states of S4, or complex [d, n / 2] for the
# diagonal of S4D. Slow poles lie next to 1, and squares of A itself would lose how close.


def times(change: Tensor, x: Tensor) -> Tensor:
    """A x for states [..., d, n]."""
    if change.dim() == 2:
        return x + change * x
    return x + torch.einsum("dij,...dj->...di", change, x)


def squared(change: Tensor) -> Tensor:
    """A^2."""
    return 2 * change + (change * change if change.dim() == 2 else change @ change)


def powers(change: Tensor, x: Tensor, count: int) -> Tensor:
    """A^j x, j < count, by doubling: [count, ..., d, n]."""
    found = x[None]
    while found.shape[0] < count:
        found = torch.cat([found, times(change, found)])
        change = squared(change)
    return found[:count]


def kernels(change: Tensor, b: Tensor, c: Tensor, length: int) -> Tensor:
    """K_j = C A^j B, j < length: float32 [s, d, length] for readouts c [s, d, n].

    In two levels, K_{kt+j} = (C A^j) (A^{kt} B): both factors are about sqrt(length) long.
    """
    rounds = ((length - 1).bit_length() + 1) // 2
    rows = powers(change if change.dim() == 2 else change.transpose(1, 2), c, 1 << rounds)
    for _ in range(rounds):
        change = squared(change)
    columns = powers(change, b, -(-length // (1 << rounds)))
    taps = torch.einsum("tsdn,kdn->sdkt", rows, columns).flatten(2)[..., :length]
    return taps.real if taps.is_complex() else taps


def expm1(x: Tensor) -> Tensor:
    """exp(x) - I of matrices [d, n, n], by squaring."""
    x = x / 2**16
    series = x / 4
    for k in (3, 2, 1):
        series = (x + x @ series) / k
    for _ in range(16):
        series = squared(series)
    return series


def real(x: Tensor) -> Tensor:
    """Complex [..., n / 2] -> real [..., n]."""
    return torch.cat([x.real, x.imag], dim=-1)


def multiplication(z: Tensor) -> Tensor:
    """The real matrices [d, n, n] that multiply by a complex diagonal [d, n / 2]."""
    x, y = torch.diag_embed(z.real), torch.diag_embed(z.imag)
    return torch.cat([torch.cat([x, -y], dim=-1), torch.cat([y, x], dim=-1)], dim=-2)


class StateSpace(nn.Module):
    """y = SSM(x) + D x; complex parameters are real pairs, copies of (A, B) are tiled over d.

    By their prefix the library knows which parameters stay float32.
    """

    def __init__(self, config: SpadeConfig, settings: dict[str, Any], causal: bool):
        super().__init__()
        d, half = config.d_model, settings["state_size"] // 2
        copies = settings["num_copies"] or d
        self.zoh = settings["discretization"] == "zoh"
        self.taps, self.detach = settings["max_kernel_length"], settings["detach"]
        self.ssm_a_low_rank = None
        if settings["init"] == "legs":
            self.ssm_a_low_rank = nn.Parameter(torch.full((copies, half, 2), 0.1))
        self.ssm_a_log_decay = nn.Parameter(torch.full((copies, half), math.log(0.5)))
        self.ssm_a_frequency = nn.Parameter(math.pi * torch.arange(half).float().repeat(copies, 1))
        self.ssm_b = nn.Parameter(torch.ones(copies, half, 2))
        self.ssm_c = nn.Parameter(torch.randn(1 if causal else 2, d, half, 2) * 0.5**0.5)
        self.ssm_d = nn.Parameter(torch.randn(d))
        self.ssm_log_dt = nn.Parameter(torch.empty(d).uniform_(math.log(1e-3), math.log(1e-1)))

    def discrete(self) -> tuple[Tensor, Tensor, Tensor]:
        """A - I, B [d, n] and readouts [s, d, n]."""
        repeat = len(self.ssm_d) // len(self.ssm_b)
        w = torch.complex(-self.ssm_a_log_decay.float().exp(), self.ssm_a_frequency.float())
        w, b = w.repeat(repeat, 1), torch.view_as_complex(self.ssm_b.float()).repeat(repeat, 1)
        c, dt = torch.view_as_complex(self.ssm_c.float()), self.ssm_log_dt.float().exp()[:, None]
        inverse = 1 / (1 - dt / 2 * w)
        if self.ssm_a_low_rank is None:
            if not self.zoh:
                return inverse * dt * w, inverse * dt * b, 2 * c
            x, y = (dt * w).real, (dt * w).imag
            held = torch.complex(
                x.expm1() * y.cos() - 2 * (y / 2).sin().square(), x.exp() * y.sin()
            )
            return held, held / w * b, 2 * c
        c = torch.cat([2 * c.real, -2 * c.imag], dim=-1)
        p_complex = torch.view_as_complex(self.ssm_a_low_rank.float()).repeat(repeat, 1)
        p = real(p_complex)
        if self.zoh:
            # exp of [[A, B], [0, 0]] dt holds exp(A dt), and the integral that B' is.
            a = multiplication(w) - 2 * p[:, :, None] * p[:, None, :]
            both = torch.cat([a, real(b)[:, :, None]], dim=-1) * dt[:, :, None]
            held = expm1(functional.pad(both, (0, 0, 0, 1)))
            return held[:, :-1, :-1], held[:, :-1, -1], c
        # (I - dt/2 A)^-1 by Sherman and Morrison's formula.
        column, row = real(inverse * p_complex), real(inverse.conj() * p_complex)
        gain = dt / (1 + dt * (p * column).sum(-1, keepdim=True))
        held = real(inverse * dt * b)
        held = held - gain * column * (row * real(dt * b)).sum(-1, keepdim=True)
        a = multiplication(inverse * dt * w)
        return a - (2 * gain * column)[:, :, None] * row[:, None, :], held, c

    def forward(self, x: Tensor, seen: Any, slot: Slot | None) -> Tensor:
        """[b, l, d] -> [b, l, d]; `seen.new` bool [b, l] is False at padding."""
        u = x.float() * seen.new[..., None]
        y = self.convolve(u) if slot is None else self.step_by_step(u, slot)
        y = (y + self.ssm_d.float() * x.float()).to(x.dtype)
        return y.detach() if self.detach else y

    def convolve(self, u: Tensor) -> Tensor:
        """Of whole sequences, by Fourier transforms."""
        length = u.shape[1]
        taps = length if self.taps is None else min(length, self.taps)
        k = kernels(*self.discrete(), taps)
        size = 1 << (length + taps - 1).bit_length()
        # Around the circle: taps to the left from 0 on, to the right from -1 back.
        around = functional.pad(k[0], (0, size - taps))
        if len(k) == 2:
            around = around + functional.pad(k[1].flip(-1), (size - taps, 0))
        transform = torch.fft.rfft(u.transpose(1, 2), size) * torch.fft.rfft(around, size)
        return torch.fft.irfft(transform, size)[..., :length].transpose(1, 2)

    def step_by_step(self, u: Tensor, slot: Slot) -> Tensor:
        """Of the next tokens: x = A x + B u, less what leaves a kernel that is cut off."""
        if not slot.is_initialized:
            change, b, c = self.discrete()
            last = None if self.taps is None else powers(change, b, self.taps + 1)[-1]
            # The same for all sequences and tokens.
            slot.system = change, b, c[0], last
            slot.put(b.new_zeros(len(u), *b.shape), u[:, :0])
        change, b, c, last = slot.system
        state, recent, outputs = slot.keys, slot.values, []
        for one in u.unbind(1):
            state = times(change, state) + b * one[..., None]
            if last is not None:
                if recent.shape[1] == self.taps:
                    state = state - last * recent[:, 0, :, None]
                    recent = recent[:, 1:]
                recent = torch.cat([recent, one[:, None]], dim=1)
            y = (state * c).sum(-1)
            outputs.append(y.real if y.is_complex() else y)
        slot.put(state, recent)
        return torch.stack(outputs, dim=1)
