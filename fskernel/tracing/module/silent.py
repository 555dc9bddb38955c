"""Modules that leave nothing behind in eval mode (Identity, Dropout), for the report."""

from __future__ import annotations

from torch import nn

from fskernel.graph import Layer

SILENT = (nn.Identity, nn.modules.dropout._DropoutNd)


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
    return isinstance(module, SILENT) and type(module).__module__.startswith("torch.nn")
