"""Import paths of modules from before they lay in folders: those that users know keep working."""

import sys
from importlib import import_module

FORMER = {
    "neuron": "codes.neuron",
    "exact_float": "codes.exact_float",
    "float_environment": "torch_rules.float_environment",
    "gradient": "torch_rules.gradient",
    "forking": "torch_rules.forking",
    "exporting": "torch_rules.exporting",
    "compiling": "torch_rules.compiling",
    "neutral": "torch_rules.neutral",
    "ops": "kernels.ops",
    "fakes": "kernels.fakes",
    "maps": "kernels.byte_maps",
    "device": "kernels.device",
    "info": "kernels.info",
    "reference_checks": "reference.checks",
    "fx_trace": "tracing.fx_trace",
    "trace": "tracing.trace",
    "compare": "tracing.compare",
    "fuse": "tracing.fuse",
    "fuse_values": "tracing.values",
    "fuse_pools": "tracing.pools",
    "advice": "tracing.advice",
    "calibrate": "calibration.ranges",
    "alphas": "calibration.by_logits",
    "correct": "calibration.correct",
    "weight_bits": "calibration.weight_bits",
    "spiking_graph": "calibration.rounded_graph",
    "pictures": "calibration.spool",
    "convert": "conversion.convert",
    "builder": "conversion.builder",
    "steps": "network.steps",
    "synapses": "network.synapses",
    "step_checks": "network.step_checks",
    "plan": "network.plan",
    "storage": "network.stored.files",
    "fields": "network.stored.fields",
    "fingerprint": "network.stored.fingerprint",
    "stats": "network.stats",
    "schedule": "network.schedule",
    "recording": "network.recording",
    "report": "network.report",
    "rate_kernels": "rate.fused",
    "energy": "analysis.energy",
    "plots": "analysis.plots",
    "fidelity": "analysis.fidelity",
    "search": "k_search.search",
    "search_evaluate": "k_search.evaluate",
    "search_ledger": "k_search.ledger",
    "layers": "drop_in.layers",
    "pools": "drop_in.pools",
    "settled": "drop_in.settled",
    "trained": "drop_in.trained",
    "replace": "drop_in.replace",
    "watch": "drop_in.watch",
}


def keep() -> None:
    """Makes the former paths, `fskernel.ops` and others, names of the same modules."""
    package = sys.modules[__package__]
    for former, path in FORMER.items():
        module = import_module(f"{__package__}.{path}")
        sys.modules[f"{__package__}.{former}"] = module
        if not hasattr(package, former):  # functions have some of the names: convert, search
            setattr(package, former, module)
