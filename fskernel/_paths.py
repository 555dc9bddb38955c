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
    "synapses": "network.synapses",
}
# Modules that have become packages: what pickles of an earlier version look for in them.
INSIDE = {"network": ("network.network", "FSNetwork"), "rate": ("rate.network", "RateNetwork")}


def keep() -> None:
    """Makes the former paths, `fskernel.ops` and others, names of the same modules."""
    package = sys.modules[__package__]
    for former, path in FORMER.items():
        module = import_module(f"{__package__}.{path}")
        sys.modules[f"{__package__}.{former}"] = module
        if not hasattr(package, former):  # functions have some of the names: convert, search
            setattr(package, former, module)
    for former, (path, name) in INSIDE.items():
        module = import_module(f"{__package__}.{path}")
        setattr(sys.modules[f"{__package__}.{former}"], name, getattr(module, name))
