"""Scalar functions that neurons compute in place of a ReLU: those of torch, and users' own.

Only the float side: what a function gives, and between which bounds. What words a neuron makes of
it is decided by `fskernel.codes` and the kernels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from numbers import Real

import torch
import torch.nn.functional as F
from torch import Tensor

Function = Callable[..., Tensor]

FURTHEST = 1e4  # inputs up to here have to give finite values
# By how much an operation may differ that is given the same number among others: vectorised and
# scalar code of a processor's mathematics differ by a few units in the last place.
_ROUNDING = 1e-12


def _prelu(x: Tensor, *slopes: float) -> Tensor:
    return F.prelu(x, torch.tensor(slopes, dtype=x.dtype, device=x.device))


def _elu(x: Tensor, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Tensor:
    return torch.ops.aten.elu(x, alpha, scale, input_scale)


def _swish(x: Tensor, beta: float) -> Tensor:
    return x * torch.sigmoid(beta * x)


# By name: the function of a tensor and of its numbers, and what it is called in reports.
BUILT_IN: dict[str, tuple[Function, str]] = {
    "relu": (F.relu, "ReLU"),
    "silu": (F.silu, "SiLU"),
    "swish": (_swish, "Swish"),
    "hardswish": (F.hardswish, "Hardswish"),
    "gelu": (F.gelu, "GELU"),
    "gelu_tanh": (partial(F.gelu, approximate="tanh"), "GELU (tanh)"),
    "mish": (F.mish, "Mish"),
    "sigmoid": (torch.sigmoid, "Sigmoid"),
    "hardsigmoid": (F.hardsigmoid, "Hardsigmoid"),
    "log_sigmoid": (F.logsigmoid, "LogSigmoid"),
    "tanh": (torch.tanh, "Tanh"),
    "hardtanh": (torch.clamp, "Clip"),
    "softsign": (F.softsign, "Softsign"),
    "tanhshrink": (F.tanhshrink, "Tanhshrink"),
    "softshrink": (F.softshrink, "Softshrink"),
    "hardshrink": (F.hardshrink, "Hardshrink"),
    "threshold": (F.threshold, "Threshold"),
    "softplus": (F.softplus, "Softplus"),
    "elu": (_elu, "ELU"),
    "celu": (F.celu, "CELU"),
    "selu": (F.selu, "SELU"),
    "leaky_relu": (F.leaky_relu, "LeakyReLU"),
    "prelu": (_prelu, "PReLU"),
}


@dataclass(frozen=True)
class _Registered:
    function: Function
    low: float | None
    high: float | None


_registered: dict[str, _Registered] = {}


@dataclass(frozen=True)
class Activation:
    """A scalar function that neurons compute in place of a ReLU.

    Attributes:
        name: of a function of torch ("silu", "leaky_relu", "hardtanh", ...), of a registered one,
            or, where `function` is given, what it is called.
        numbers: its parameters: negative slope; alpha; lower and upper bound; of "prelu" one slope,
            or one for each channel.
        function: of a tensor, elementwise in its dtype, where it has no name that is known.
    """

    name: str
    numbers: tuple[float, ...] = ()
    function: Function | None = field(default=None, repr=False)

    def __post_init__(self):
        if self.function is None and self.name not in BUILT_IN and self.name not in _registered:
            raise ValueError(
                f"name={self.name!r} is no activation: use one of {', '.join(sorted(BUILT_IN))}, "
                "or register it (fskernel.register_activation)"
            )

    def __call__(self, x: Tensor) -> Tensor:
        """What it gives for a float tensor [N, C, ...], elementwise and in its dtype."""
        if self.function is not None:
            return self.function(x)
        if self.name in BUILT_IN:
            return BUILT_IN[self.name][0](x, *self.numbers)
        return _registered[self.name].function(x.double()).to(x.dtype)

    def leaves(self, low: float, high: float) -> bool:
        """Whether it leaves all numbers from low to high as they are; they may be infinite."""
        if self.per_channel:
            return low >= 0
        x = _samples()
        x = x[(x >= low) & (x <= high)]
        x = torch.cat([x, x.new_tensor([n for n in (low, high) if math.isfinite(n)])])
        return torch.equal(self(x), x)

    @property
    def per_channel(self) -> bool:
        """Whether channels have functions of their own."""
        return self.name == "prelu" and len(self.numbers) > 1

    def of_channel(self, c: int) -> Activation:
        """The function of one channel."""
        if self.name != "prelu":
            return self
        return Activation("leaky_relu", (self.numbers[c if self.per_channel else 0],))

    @property
    def low(self) -> float:
        """What it gives at least (its infimum), -inf where there is no bound."""
        return self._extent[0]

    @property
    def high(self) -> float:
        """What it gives at most (its supremum), inf where there is no bound."""
        return self._extent[1]

    @property
    def _extent(self) -> tuple[float, float]:
        if self.name == "prelu" and self.function is None:
            return (-math.inf if max(self.numbers) > 0 else 0.0), math.inf
        return _extent(self)

    def text(self) -> str:
        """For reports: "SiLU", "LeakyReLU(0.1)", "PReLU (64 slopes)"."""
        shown = BUILT_IN[self.name][1] if self.name in BUILT_IN else self.name
        if self.function is not None or not self.numbers:
            return self.name if self.function is not None else shown
        if self.per_channel:
            return f"{shown} ({len(self.numbers)} slopes)"
        return f"{shown}({', '.join(f'{n:g}' for n in self.numbers)})"


@lru_cache(maxsize=1024)
def _extent(activation: Activation) -> tuple[float, float]:
    low, high = bounds(activation)
    known = _registered.get(activation.name) if activation.function is None else None
    if known is not None:
        low = low if known.low is None else known.low
        high = high if known.high is None else known.high
    return low, high


def _samples() -> Tensor:
    """Inputs that show what a function is like, in order, float64: dense where most is going on."""
    far = torch.logspace(math.log10(40.0), math.log10(FURTHEST), 2000, dtype=torch.float64)
    near = torch.arange(-40_000, 40_001, dtype=torch.float64) / 1000
    return torch.cat([-far.flip(0)[:-1], near, far[1:]])


def bounds(function: Function) -> tuple[float, float]:
    """Infimum and supremum of a scalar function, -inf or inf where it has none.

    Looked for between -10,000 and 10,000; whether it grows on beyond is seen from numbers up to
    10^12.
    """
    return _least(function), -_least(lambda x: -function(x))


def _least(function: Function) -> float:
    x = _samples()
    y = function(x)
    i = int(y.argmin())
    least = float(y[i])
    for _ in range(4):  # 500 times closer each time
        x = torch.linspace(
            float(x[max(i - 1, 0)]), float(x[min(i + 1, len(x) - 1)]), 1001, dtype=torch.float64
        )
        y = function(x)
        i = int(y.argmin())
        least = min(least, float(y[i]))
    for sign in (-1.0, 1.0):
        near, far = function(torch.tensor([sign * 1e8, sign * 1e12], dtype=torch.float64)).tolist()
        if math.isnan(far):
            continue
        # It goes down without end, and does not just swing to and fro.
        if all(far < y - 1e-3 * (1.0 + abs(y)) for y in (near, least)):
            return -math.inf
        least = min(least, far)
    return least


def register_activation(
    name: str, function: Function, *, low: float | None = None, high: float | None = None
) -> None:
    """Makes a scalar function known as an activation, so that neurons can stand for it.

    Formulas of torch's operations need none: `x * torch.sigmoid(x)` and the like are recognised in
    the traced module. This is for operators that torch.export keeps whole (torch.library), and for
    modules that shall stay whole.

    Args:
        name: of the operator in the traced module ("snake" for torch.ops.mylib.snake), or of a
            class of modules ("Snake"), which read one tensor and whose parts are not looked at.
            A second registration of a name takes the place of the first.
        function: maps a float64 tensor of any shape elementwise, to a new one.
        low, high: its infimum and supremum, -inf and inf where it has none. Default: found
            numerically, between -10,000 and 10,000.

    Raises:
        TypeError, ValueError: it is not that, and why.
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"name={name!r} is no name of an operator or of a class of modules")
    if name in BUILT_IN:
        raise ValueError(f"name={name!r} is an activation of torch, which is known: use another")
    if not callable(function):
        raise TypeError(f"function is a {type(function).__name__}: give a function of a tensor")
    check_scalar(name, function)
    least, most = bounds(function)
    for what, value, found, sign in (("low", low, least, 1), ("high", high, most, -1)):
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, Real) or math.isnan(value):
            raise TypeError(f"{what}={value!r} is no number: give one, an infinity, or None")
        if sign * (value - found) > 1e-6 * (1.0 + abs(found)):
            raise ValueError(f"{what}={value!r}, but the function gives {found:g}: leave it out")
    if not least < most:
        raise ValueError(f"the function of {name!r} gives {least:g} for every number")
    _registered[name] = _Registered(function, low, high)
    _extent.cache_clear()


def is_registered(name: str) -> bool:
    """Whether a user's activation has this name."""
    return name in _registered


def check_scalar(name: str, function: Function) -> None:
    """Refuses what is no elementwise, finite, deterministic function of a float64 tensor.

    Raises:
        TypeError, ValueError: naming it, what it does, and the cure.
    """
    x = _samples()
    given = x.clone()
    try:
        with torch.no_grad():
            y = function(given)
            again = function(x.clone())
            few = function(x[::9].clone().flip(0).view(1, -1, 1))
    except Exception as error:  # whatever the user's code raises
        raise ValueError(
            f"the function of {name!r} does not take float64 tensors of any shape "
            f"({type(error).__name__}: {error}): write it as operations on a tensor"
        ) from error
    if not isinstance(y, Tensor) or y.dtype != torch.float64 or y.shape != x.shape:
        what = f"{y.dtype} {list(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
        raise TypeError(
            f"the function of {name!r} gives {what} for a float64 tensor {list(x.shape)}: return "
            "one of the same shape and dtype"
        )
    if not torch.equal(given, x):
        raise ValueError(
            f"the function of {name!r} writes into its input: return a new tensor in its place"
        )
    if not torch.isfinite(y).all():
        at = float(x[int((~torch.isfinite(y)).nonzero()[0])])
        raise ValueError(
            f"the function of {name!r} gives {float(function(x.new_tensor([at]))):g} for {at:g}: "
            f"numbers up to {FURTHEST:g} have to give finite ones; write it in a form that does "
            "not overflow"
        )
    if not torch.equal(y, again):
        raise ValueError(f"the function of {name!r} gives other numbers when it is called again")
    expected = y[::9].flip(0)
    if few.shape != (1, len(expected), 1) or not torch.allclose(
        few.flatten(), expected, rtol=_ROUNDING, atol=_ROUNDING
    ):
        raise ValueError(
            f"the function of {name!r} is not elementwise: what it gives for a number depends on "
            "the numbers around it"
        )
