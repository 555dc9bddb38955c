"""What a trained layer computes with, whatever form torch keeps it in."""

from __future__ import annotations

import copy

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from fskernel.errors import ConversionError


def weights_of(
    what: str, layer: nn.Module, kinds: tuple[type, ...]
) -> tuple[Tensor | None, Tensor | None]:
    """Weight and bias, float64, of a layer that computes what its class says from them.

    What is parametrised, in torch's newer way or by hooks (weight and spectral norm, pruning), is
    computed as in eval mode; the layer itself stays as it is.

    Args:
        what: the argument's name. kinds: the classes it may be of; their subclasses are others.

    Raises:
        ConversionError: it is none of them, has no weights yet, or computes something else (hooks,
            a forward of its own).
    """
    wanted = f"an nn.{kinds[0].__name__} that holds the weights it computes with"
    tensors = (*layer.parameters(), *layer.buffers()) if isinstance(layer, nn.Module) else ()
    if any(map(is_lazy, tensors)):
        raise ConversionError(what, "it is lazy and has no weights yet", "Run it on an input once")
    if parametrize.type_before_parametrizations(layer) not in kinds:
        kind = type(layer).__name__
        raise ConversionError(
            what, f"it is a {kind}, which may compute something else", f"Give {wanted}"
        )
    if "forward" in vars(layer):
        raise ConversionError(
            what, "it has a forward of its own, set on this instance", f"Give {wanted}"
        )
    if parametrize.is_parametrized(layer):
        layer = copy.deepcopy(layer).eval()  # in train mode reading may change it
    found = {"weight": layer.weight, "bias": layer.bias}
    for hook in (*layer._forward_pre_hooks.values(), *layer._forward_hooks.values()):
        if isinstance(hook, WeightNorm):
            found[hook.name] = hook.compute_weight(layer)
        elif isinstance(hook, SpectralNorm):
            found[hook.name] = hook.compute_weight(layer, do_power_iteration=False)
        elif isinstance(hook, BasePruningMethod):
            found[hook._tensor_name] = hook.apply_mask(layer)
        else:
            raise ConversionError(
                what, "it has forward hooks, which may change what it reads or gives", "Remove them"
            )
    weight, bias = (None if t is None else t.detach().double() for t in found.values())
    return weight, bias
