"""The module that is given: a copy of it without wrappers, and what its user and it call."""

from __future__ import annotations

import copy
import inspect
import os
import traceback

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize
from torch.optim.swa_utils import AveragedModel

from fskernel.errors import ConversionError
from fskernel.graph import Layer

ONE_INPUT = "Networks have one input, an image"
_SILENT = (nn.Identity, nn.modules.dropout._DropoutNd)  # leave nothing behind in eval mode
_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)
_NOT_THE_USERS = tuple(
    os.path.dirname(os.path.abspath(path)) + os.sep for path in (torch.__file__, __file__)
)


def copied(module: nn.Module) -> nn.Module:
    """A copy on the CPU, float64, in eval mode; not parallel, not compiled, not parametrised.

    Raises:
        ConversionError: lazy, without values, scripted, with a second input, or not to be copied.
    """
    module = _unwrapped(module)
    for name, child in module.named_modules():
        _check(name or type(child).__name__, child)
    _check_inputs(module)
    module = deep_copy(module, "convert that", _without_history(module))
    module = module.eval().to("cpu", torch.float64)
    for child in list(module.modules()):
        child._compiled_call_impl = None  # what module.compile() leaves
        if parametrize.is_parametrized(child):
            for tensor in list(child.parametrizations):
                parametrize.remove_parametrizations(child, tensor)
        for name, part in list(child.named_children()):
            setattr(child, name, _unwrapped(part))
    return module


def deep_copy(module: nn.Module, then: str, memo: dict[int, object] | None = None) -> nn.Module:
    """A deep copy; `memo` as of copy.deepcopy, `then` ends the cure: what to do with a new module.

    Raises:
        ConversionError: it cannot be copied.
    """
    try:
        return copy.deepcopy(module, memo)
    except Exception as error:  # whatever the module's own attributes raise
        raise ConversionError(
            type(module).__name__,
            f"it cannot be copied ({first_line(error)})",
            f"Build the module anew, load this one's state_dict, and {then}",
        ) from error


def _without_history(module: nn.Module) -> dict[int, object]:
    """For copy.deepcopy: tensors that were computed, which it refuses, as what they are.

    The older weight_norm, spectral_norm and prune leave such in the place of weights.
    """
    return {
        id(value): value.detach().clone()
        for child in module.modules()
        for value in vars(child).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }


def _unwrapped(module: nn.Module) -> nn.Module:
    """The module inside of wrappers that only say how it is run."""
    while True:
        if isinstance(module, _WRAPPERS):
            module = module.module
        elif type(module).__name__ == "OptimizedModule":  # what torch.compile returns
            module = module._orig_mod
        else:
            return module


def _check(name: str, module: nn.Module) -> None:
    """Refuses a module, its submodules aside, of which a copy would not be the same."""
    tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    if any(is_lazy(t) for t in tensors):
        raise ConversionError(
            name,
            "it is lazy and has not seen an input, so its weights have neither shapes nor values",
            "Run the module on an image once, train it or load its weights, then convert it",
        )
    if any(t.is_meta for t in tensors):
        raise ConversionError(
            name,
            "its weights are on the device 'meta', which keeps shapes and no values",
            "Load the weights: module.to_empty(device='cpu'), then module.load_state_dict(...)",
        )
    if isinstance(module, torch.jit.ScriptModule):
        raise ConversionError(
            name, "torch.jit has compiled it", "Convert the module it was compiled from"
        )


def _check_inputs(module: nn.Module) -> None:
    """Refuses a forward that wants more than an image; what it leaves out has its defaults."""
    parameters = list(inspect.signature(module.forward).parameters.values())
    for p in parameters[1:]:
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            raise ConversionError(p.name, "it is a second input", ONE_INPUT)


def first_line(error: BaseException) -> str:
    """What an exception says, in short."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def place(error: BaseException) -> str:
    """The innermost line of the user's own code on the way to an error: " (file:line: `code`)"."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename.startswith("<") or frame.filename.startswith(_NOT_THE_USERS):
            continue
        return f" ({os.path.basename(frame.filename)}:{frame.lineno}: `{frame.line}`)"
    return ""


class Calls:
    """Notes in which order a module calls its submodules, from now on until `end`.

    Attributes:
        kinds: classes of the silent ones by their names.
    """

    def __init__(self, module: nn.Module):
        self.kinds = {n: type(m).__name__ for n, m in module.named_modules() if _is_silent(m)}
        self._called: dict[str, None] = {}
        self._hooks = []
        for name, child in module.named_modules() if self.kinds else ():
            if not any(True for _ in child.children()):
                self._hooks.append(child.register_forward_hook(self._noting(name)))

    def _noting(self, name: str):
        def note(module, args, result):
            self._called[name] = None

        return note

    def end(self) -> None:
        """Looks on no longer."""
        for hook in self._hooks:
            hook.remove()

    def attach(self, layers: list[Layer]) -> None:
        """Adds the silent modules to the layers that hold what was called before them."""
        holds = {name: layer for layer in layers for name in (*layer.fused, layer.name)}
        at = layers[0]
        for name in self._called:
            if name in holds:
                at = holds[name]
            elif name in self.kinds:
                at.fused = (*at.fused, name)


def _is_silent(module: nn.Module) -> bool:
    return isinstance(module, _SILENT) and type(module).__module__.startswith("torch.nn")
