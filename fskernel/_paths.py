"""Import paths of modules from before they lay in folders: those that users know keep working."""

import sys
from importlib import import_module

FORMER = {
    "energy": "analysis.energy",
    "layers": "drop_in.layers",
    "neuron": "codes.neuron",
    "ops": "kernels.ops",
    "plots": "analysis.plots",
    "pools": "drop_in.pools",
    "rate_kernels": "rate.fused",
    "stats": "network.stats",
    "steps": "network.steps",
}


def keep() -> None:
    """Makes the former paths, `fskernel.ops` and others, names of the same modules."""
    package = sys.modules[__package__]
    for former, path in FORMER.items():
        module = import_module(f"{__package__}.{path}")
        sys.modules[f"{__package__}.{former}"] = module
        if not hasattr(package, former):  # functions have some of the names: convert, search
            setattr(package, former, module)
