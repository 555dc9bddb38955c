"""What makes codes and the neurons of one layer such that kernels can run them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fskernel.codes.code import Code
from fskernel.codes.fitted import LARGEST_WORTH, MOST_STEPS
from fskernel.codes.shape import SEGMENTS
from fskernel.network.steps import ConvStep

LARGEST = 32_767  # of graded values and sums


class NeuronChecks:
    """The part of `step_checks` that looks at one code, or at one layer's neurons.

    Attributes:
        place: which step is looked at, for messages.
    """

    place = ""

    def refuse(self, reason: str):
        raise ValueError(f"{self.place}: {reason}")

    def tensor(
        self, field: str, tensor: Tensor, dtypes: tuple[torch.dtype, ...], shape: tuple[int, ...]
    ) -> None:
        if tensor.dtype not in dtypes or tuple(tensor.shape) != shape:
            wanted = " or ".join(str(dtype) for dtype in dtypes)
            self.refuse(
                f"{field} is {tensor.dtype} of shape {tuple(tensor.shape)}: expected {wanted} of "
                f"shape {shape}"
            )

    def check_code(self, code: Code) -> None:
        """What holds of every code by itself."""
        if any(type(number) is not int for number in (code.x_min, code.x_max, code.K, code.zero)):
            self.refuse(f"code is {code}: expected integers")
        if not (isinstance(code.step, float) and code.step > 0 and math.isfinite(code.step)):
            self.refuse(f"code.step is {code.step}: expected a positive, finite number")
        if code.kind == "words":
            if not 1 <= code.K <= 15:
                self.refuse(f"code.K is {code.K}: words have 1 to 15 time steps")
            if (code.x_min, code.x_max) != (0, 2**code.K - 1):
                self.refuse(
                    f"code.x_min, x_max are {code.x_min}, {code.x_max}: words of K={code.K} reach "
                    f"from 0 to {2**code.K - 1}"
                )
            if not 0 <= code.zero <= code.x_max:
                self.refuse(f"code.zero is {code.zero}: expected a word, 0 to {code.x_max}")
        elif code.kind == "fitted":
            self.check_fitted_code(code)
        elif code.kind != "graded":
            self.refuse(f"code.kind is {code.kind!r}: expected 'words', 'fitted' or 'graded'")
        elif code.K != 0:
            self.refuse(f"code.K is {code.K}: graded values have no time steps, expected 0")

    def check_fitted_code(self, code: Code) -> None:
        """Of fitted neurons: how many bits it has is no matter of their time steps."""
        if not 1 <= code.K <= MOST_STEPS:
            self.refuse(f"code.K is {code.K}: fitted neurons have 1 to {MOST_STEPS} time steps")
        if code.x_min != 0 or not 1 <= code.x_max <= LARGEST or code.x_max & (code.x_max + 1):
            self.refuse(
                f"code.x_min, x_max are {code.x_min}, {code.x_max}: codes of fitted neurons reach "
                "from 0 to 2^bits - 1, of 1 to 15 bits"
            )
        if not 0 <= code.zero <= code.x_max:
            self.refuse(f"code.zero is {code.zero}: expected a code, 0 to {code.x_max}")

    def check_limit(self, code: Code) -> None:
        """What encoders and layers without neurons give: values around 0."""
        if code.kind != "graded":
            self.refuse(f"code.kind is {code.kind!r}: expected 'graded'")
        if not 1 <= code.x_max <= LARGEST or code.x_min != -code.x_max:
            self.refuse(
                f"code.x_min, x_max are {code.x_min}, {code.x_max}: expected -limit and limit, "
                f"which is 1 to {LARGEST}"
            )
        if code.zero != 0:
            self.refuse(f"code.zero is {code.zero}: expected 0")

    def check_top(self, step: ConvStep, channels: int) -> None:
        """Of neurons with a ceiling."""
        self.tensor("top", step.top, (torch.float32,), (channels,))
        whole = (step.top >= 0) & (step.top <= step.code.x_max) & (step.top == step.top.floor())
        if not (step.spiking and bool(whole.all())):
            self.refuse(f"top: expected whole numbers from 0 to {2**step.code.K - 1}")

    def check_table(self, step: ConvStep, channels: int) -> None:
        """Of shaped neurons: kernels look up segments of it, whatever the membrane is."""
        shape = tuple(step.table.shape)
        count, segments = (shape[0], shape[-1]) if shape else (0, 0)
        if count not in (1, channels) or segments not in SEGMENTS:
            self.refuse(
                f"table has shape {shape}: expected [1, 2, S], or [{channels}, 2, S], with S one "
                f"of {SEGMENTS}"
            )
        self.tensor("table", step.table, (torch.float32,), (count, 2, segments))
        if not bool(torch.isfinite(step.table).all()):
            self.refuse("table holds NaN or infinite values")
        if not step.spiking or step.top is not None:
            self.refuse("table: it is of neurons that have no top")

    def check_fitted(self, step: ConvStep) -> None:
        """Of fitted neurons: kernels add up what spikes are worth in 32 bits."""
        if step.fitted is None:
            if step.code is not None and step.code.kind == "fitted":
                self.refuse("fitted: its code is of fitted neurons, whose thresholds are missing")
            return
        if step.code is None or step.code.kind != "fitted":
            self.refuse(f"fitted: fitted neurons do not give {step.code}")
        self.tensor("fitted", step.fitted, (torch.float32,), (3, step.code.K))
        worth = step.fitted[2]
        if not bool(torch.isfinite(step.fitted).all()):
            self.refuse("fitted holds NaN or infinite values")
        if not bool((worth == worth.round()).all() and (worth.abs() <= LARGEST_WORTH).all()):
            self.refuse(
                f"fitted: spikes are worth {worth.tolist()}, expected whole numbers up to "
                f"{LARGEST_WORTH}"
            )
        if step.top is not None or step.table is not None:
            self.refuse("fitted: it is of neurons that have no top and no table")
