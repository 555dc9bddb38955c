"""Pools that take spikes as well as floats."""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

from torch import Tensor, nn

from fskernel.codes.code import Code
from fskernel.codes.geometry import pool_geometry
from fskernel.codes.neuron import GRADED_LIMIT
from fskernel.drop_in.memory_format import nchw, nhwc
from fskernel.graded import GradedTensor
from fskernel.kernels import ops
from fskernel.spikes import SpikeTensor
from fskernel.torch_rules.exporting import Untraceable


class FSMaxPool2d(Untraceable, nn.MaxPool2d):
    """nn.MaxPool2d that also pools SpikeTensors: the largest word is the code of the largest."""

    if TYPE_CHECKING:  # at run time nn.Module's, which runs hooks; its type is Any

        @overload
        def __call__(self, x: Tensor) -> Tensor: ...

        @overload
        def __call__(self, x: SpikeTensor) -> SpikeTensor: ...

        def __call__(self, x: object) -> object: ...

    def forward(self, x: Tensor | SpikeTensor) -> Tensor | SpikeTensor:
        """[N, C, H, W] -> [N, C, OH, OW] of the same type."""
        if not spikes_to_pool(x):
            return super().forward(x)
        if self.return_indices:
            raise ValueError("return_indices=True: spikes carry no indices")
        geometry = pool_geometry(self, self.dilation)
        return SpikeTensor(nchw(ops.max_pool(nhwc(x.words), geometry)), x.neuron, check=False)


class FSAvgPool2d(Untraceable, nn.AvgPool2d):
    """nn.AvgPool2d that also pools SpikeTensors, into a GradedTensor: sums standing for means."""

    if TYPE_CHECKING:  # at run time nn.Module's, which runs hooks; its type is Any

        @overload
        def __call__(self, x: Tensor) -> Tensor: ...

        @overload
        def __call__(self, x: SpikeTensor) -> GradedTensor: ...

        def __call__(self, x: object) -> object: ...

    def forward(self, x: Tensor | SpikeTensor) -> Tensor | GradedTensor:
        """Float -> float; SpikeTensor [N, C, H, W] -> GradedTensor [N, C, OH, OW]."""
        if not spikes_to_pool(x):
            return super().forward(x)
        geometry = pool_geometry(self, 1)
        n = geometry.kernel[0] * geometry.kernel[1]
        if not self.count_include_pad and any(geometry.padding):
            raise ValueError("count_include_pad=False with padding is not supported on spikes")
        if self.divisor_override not in (None, n):
            raise ValueError(f"divisor_override={self.divisor_override} is not supported on spikes")
        code = Code.words(x.neuron.K, x.neuron.alpha).pooled(n)
        if code.x_max > GRADED_LIMIT:
            raise ValueError(
                f"the sum of {n} words up to {x.neuron.max_word} exceeds {GRADED_LIMIT}: use a "
                "smaller K or window"
            )
        return GradedTensor(nchw(ops.sum_pool(nhwc(x.words), geometry)), code, check=False)


def spikes_to_pool(x: object) -> bool:
    """Whether x is a SpikeTensor of maps; float tensors are torch's, anything else is refused."""
    if isinstance(x, SpikeTensor):
        if len(x.shape) != 4:
            raise ValueError(f"x has shape {tuple(x.shape)}: expected [N, C, H, W]")
        return True
    if isinstance(x, Tensor):
        return False
    raise TypeError(f"x is a {type(x).__name__}: expected a float tensor or a SpikeTensor")
