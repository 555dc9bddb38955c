"""How layers are called: after the module they come from, or after the function and its number.

Dictionaries of K and alpha name layers, so the rule stays as it is:

* An operation inside of a module of torch.nn is called as that module: the first of the names that
  `named_modules` has for it, whichever name it is called by.
* So is one inside of a module derived from a convolution or a linear layer, or of a class that is
  registered as an activation.
* Any other is called as its function ("cat", "conv2d"), from the second one on with a number
  ("cat_1"), counting from 1 the functions of that name the output depends on. A module of that name
  counts as one.
* Where a name is taken, because a module is called several times, "@2", "@3" and so on follow.
"""

from __future__ import annotations

import re

from torch import fx, nn

from fskernel.activations import is_registered

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


class Names:
    """Names of the operations of one exported module, asked for in the order in which they run."""

    def __init__(self, module: nn.Module):
        self._modules = dict(module.named_modules(remove_duplicate=False))
        self._first = {id(m): name for name, m in module.named_modules()}
        self._taken: set[str] = set()

    def owners(self, node: fx.Node) -> tuple[tuple[tuple[str, type], ...], bool]:
        """Paths and classes of the modules an operation is part of, innermost first.

        Nothing is looked for inside of a module of torch.nn; the second value tells whether the
        innermost is one.
        """
        found: list[tuple[str, type]] = []
        for path, _ in (node.meta.get("nn_module_stack") or {}).values():
            path = re.sub(r"@\d+$", "", path)  # of the second call of a module
            if not path or path not in self._modules:
                continue
            module = self._modules[path]
            found.insert(0, (self._first[id(module)], type(module)))
            if is_leaf(type(module)):
                return tuple(found), True
        return tuple(found), False

    def owner(self, node: fx.Node) -> str:
        """The module an operation is called after, or "" where that is its function."""
        owners, leaf = self.owners(node)
        if leaf:
            return owners[0][0]
        for path, kind in owners:
            if issubclass(kind, _NAMED) or is_registered(kind.__name__):
                return path
        return ""

    def of(self, node: fx.Node, op: str) -> str:
        """What the layer would be called that an operation `op` makes."""
        path = self.owner(node)
        if path:
            self._taken.add(path.replace(".", "_"))
            return path
        name, n = op, 1
        while name in self._taken:
            name, n = f"{op}_{n}", n + 1
        self._taken.add(name)
        return name

    def kind(self, node: fx.Node, op: str) -> str:
        """What an operation is: the class of its module, or its function."""
        path = self.owner(node)
        return type(self._modules[path]).__name__ if path else op


_NAMED = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.Linear)


def is_leaf(kind: type) -> bool:
    """Whether a class is one of torch.nn's that compute something themselves."""
    return kind.__module__.startswith("torch.nn") and not issubclass(kind, _CONTAINERS)
