"""What torch.fx sees of a module: a copy of it in eval mode, as a graph of operations."""

from __future__ import annotations

import copy
import inspect
import os
import traceback
from collections.abc import Callable

import torch
from torch import fx, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from fskernel.errors import ConversionError

ONE_INPUT = "Networks have one input, an image"
PLAIN = "Write forward as one sequence of torch operations on the image"
_NOT_THE_USERS = tuple(
    os.path.dirname(os.path.abspath(path)) + os.sep for path in (torch.__file__, __file__)
)


def copied(module: nn.Module) -> nn.Module:
    """A copy on the CPU, float64, in eval mode; not parallel, not compiled, not parametrised.

    Raises:
        ConversionError: lazy, without values, with hooks, scripted, or not to be copied.
    """
    module = _unwrapped(module)
    for name, child in module.named_modules():
        _check(name or type(child).__name__, child)
    module = deep_copy(module, "convert that")
    module = module.eval().to("cpu", torch.float64)
    for child in list(module.modules()):
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


def _unwrapped(module: nn.Module) -> nn.Module:
    """The module inside of wrappers that only say how it is run."""
    while True:
        if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
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
    if module._forward_hooks or module._forward_pre_hooks:
        raise ConversionError(
            name,
            "it has forward hooks, which a conversion cannot follow",
            "Remove them; weight norm and pruning are made permanent by their remove functions",
        )


class _Tracer(fx.Tracer):
    """Calls a module as its user does, with an image and nothing else."""

    def create_args_for_root(self, root_fn, is_module, concrete_args=None):
        image = self.create_proxy("placeholder", "x", (), {})
        return (lambda root, x: root.forward(x)), [self.root, image]

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        known = super().is_leaf_module(m, module_qualified_name)
        return known and "forward" not in vars(m)  # replaced on the instance

    def call_module(self, m: nn.Module, forward: Callable, args: tuple, kwargs: dict):
        try:
            self.path_of_module(m)
        except NameError:
            if any(True for _ in m.parameters()) or any(True for _ in m.buffers()):
                raise _Stranger(type(m).__name__) from None
            return forward(*args, **kwargs)  # made on the spot, like nn.ReLU()(x)
        return super().call_module(m, forward, args, kwargs)


class _Stranger(Exception):
    """A module with weights is called that is no submodule."""


def symbolic(module: nn.Module) -> fx.GraphModule:
    """The operations of a module for an image; its other arguments have their defaults.

    `meta["options"]` are the names of those.

    Raises:
        ConversionError: naming the line of forward that cannot be followed, and why.
    """
    name = type(module).__name__
    parameters = list(inspect.signature(module.forward).parameters.values())[1:]
    for p in parameters:
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            raise ConversionError(p.name, "it is a second input", ONE_INPUT)
    tracer = _Tracer()
    try:
        traced = fx.GraphModule(module, tracer.trace(module), name)
    except _Stranger as error:
        raise ConversionError(
            name,
            f"forward{_place(error)} calls a {error} that is no submodule of it, so its weights "
            "are not the module's",
            "Make it in __init__ and keep it as an attribute (no closure over another module)",
        ) from error
    except Exception as error:  # fx raises whatever the module's own code raises
        text, place = first_line(error), _place(error)
        if isinstance(error, fx.proxy.TraceError) or "Proxy" in text or "symbolic" in text:
            reason = (
                f"forward{place} branches on, loops over or takes out numbers of the image at "
                f"hand, or writes into a part of a map; torch.fx follows none of these ({text})"
            )
            cure = f"{PLAIN}, without what that line does; torch._assert may check a shape"
        else:
            reason = f"torch.fx cannot follow forward{place} ({text})"
            cure = f"{PLAIN}, without what that line does"
        raise ConversionError(name, reason, cure) from error
    traced.meta["options"] = [
        p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    return traced


def first_line(error: BaseException) -> str:
    """What an exception says, in short."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _place(error: BaseException) -> str:
    """The innermost line of the user's own code on the way to an error: " (file:line: `code`)"."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename.startswith("<") or frame.filename.startswith(_NOT_THE_USERS):
            continue
        return f" ({os.path.basename(frame.filename)}:{frame.lineno}: `{frame.line}`)"
    return ""
