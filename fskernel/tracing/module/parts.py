"""Parts of a module as a module: named submodules, one reading what another gives."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fskernel.errors import ConversionError
from fskernel.tracing.module.given_module import copied, first_line


class Parts(nn.Module):
    """Named submodules of a module, one after the other; gives a dictionary of what they give.

    The first reads the image; the others read what those before them give, in the places where they
    do in the module. Submodules keep their names.

    Args:
        module: that they are part of; it is run once to see who reads whom.
        names: of submodules, as in `named_modules`.
        images: float [N, C, H, W], as the module reads them.

    Raises:
        ValueError: a name is none of a submodule's.
        ConversionError: one of them is not called once, or reads what no other of them gives.
    """

    def __init__(self, module: nn.Module, names: Iterable[str], images: Tensor):
        super().__init__()
        known = dict(module.named_modules())
        names = list(dict.fromkeys(names))
        for name in names:
            if name not in known or not name:
                close = ", ".join([n for n, _ in module.named_children()][:8])
                raise ValueError(
                    f"outputs names a submodule {name!r} that the module does not have: its "
                    f"children are {close}"
                )
        calls = _watched(module, {name: known[name] for name in names}, images)
        self._order, self._given = [], []
        made: dict[int, tuple[str, int]] = {}  # tensors by who gives them
        self.image: Tensor | None = None
        for name, (args, result) in calls.items():
            leaves, spec = pytree.tree_flatten(args)
            self._given.append(([self._source(name, leaf, made) for leaf in leaves], spec))
            self._order.append(name)
            for i, leaf in enumerate(pytree.tree_leaves(result)):
                if isinstance(leaf, Tensor):
                    made.setdefault(id(leaf), (name, i))
            self._place(name, known[name])

    def _source(self, name: str, leaf: object, made: dict[int, tuple[str, int]]) -> object:
        """Where an argument comes from: ("image",), (name, number of what it gives), or itself."""
        if not isinstance(leaf, Tensor):
            return _Itself(leaf)
        if id(leaf) in made:
            return made[id(leaf)]
        if self.image is None and not self._order:
            self.image = leaf
        if leaf is self.image:
            return ("", 0)
        raise ConversionError(
            name,
            f"it reads a tensor of shape {tuple(leaf.shape)} that none of the outputs before it "
            "gives",
            "Name the submodules it comes from in outputs, too",
        )

    def _place(self, name: str, module: nn.Module) -> None:
        *above, last = name.split(".")
        parent: nn.Module = self
        for part in above:
            if part not in parent._modules:
                parent.add_module(part, nn.Module())
            parent = parent._modules[part]
        parent.add_module(last, module)

    def forward(self, x: Tensor) -> dict[str, object]:
        found: dict[str, object] = {}
        leaves: dict[str, list] = {"": [x]}
        for name, (sources, spec) in zip(self._order, self._given, strict=True):
            given = [s.value if isinstance(s, _Itself) else leaves[s[0]][s[1]] for s in sources]
            args, kwargs = pytree.tree_unflatten(given, spec)
            found[name] = self.get_submodule(name)(*args, **kwargs)
            leaves[name] = pytree.tree_leaves(found[name])
        return found


class _Itself:
    def __init__(self, value: object):
        self.value = value


def parts_of(module: nn.Module, names: Iterable[str], input_size: tuple[int, ...] | None) -> Parts:
    """The parts of a copy of a module that is shown images of a shape [N, C, H, W].

    Raises:
        ValueError: as `Parts`, or no shape is given. ConversionError: as `Parts`.
    """
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        raise ValueError("outputs is empty: name submodules, or leave it out")
    if input_size is None:
        raise ValueError("outputs=... needs calibration images or input_size=(N, C, H, W)")
    module = copied(module).float()
    return Parts(module, names, torch.zeros(2, *input_size[1:]))


def _watched(module: nn.Module, wanted: dict[str, nn.Module], images: Tensor) -> dict:
    """Arguments and result of each submodule's call, in the order in which they are called."""
    calls: dict[str, tuple] = {}
    times = dict.fromkeys(wanted, 0)
    hooks = []

    def look(name: str):
        def note(_, args, kwargs, result):
            times[name] += 1
            calls.setdefault(name, ((args, kwargs), result))

        return note

    for name, child in wanted.items():
        hooks.append(child.register_forward_hook(look(name), with_kwargs=True))
    was = module.training
    try:
        with torch.no_grad():
            module.eval()(images)
    except Exception as error:  # whatever the module's own code raises
        raise ConversionError(
            type(module).__name__,
            f"it does not run on images of shape {tuple(images.shape)} ({first_line(error)}); a "
            "run shows which of its outputs reads which",
            "Pass calibration images as the module reads them",
        ) from error
    finally:
        module.train(was)
        for hook in hooks:
            hook.remove()
    for name, n in times.items():
        if n != 1:
            raise ConversionError(
                name,
                f"the module calls it {n} times" if n else "the module does not call it",
                "Name submodules that are called once for an image",
            )
    return calls
