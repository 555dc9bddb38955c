"""fskernel: Few-Spikes (FS) spiking convolutional networks in one fused pass, bit-exact.

    net = fskernel.convert(trained_cnn, calibration_images, K=8)
    logits, stats = net.run(images)

The contract, the neuron and the vocabulary: docs/how-it-works.md.
"""

import logging

from fskernel import _paths, models, reference
from fskernel._version import __version__
from fskernel.activations import register_activation
from fskernel.analysis import energy, neurobench, plots
from fskernel.analysis.fidelity import fidelity
from fskernel.calibration.fit import fit_neuron
from fskernel.clipping import ClippingWarning
from fskernel.codes import neuron
from fskernel.codes.fitted import FittedNeuron
from fskernel.codes.neuron import FSNeuron, from_spikes, to_spikes
from fskernel.conversion.convert import convert
from fskernel.conversion.paper_pools import paper_pools
from fskernel.drop_in.layers import FSConv2d, FSLinear
from fskernel.drop_in.pools import FSAvgPool2d, FSMaxPool2d
from fskernel.drop_in.replace import Replacement, ReplaceReport, replace
from fskernel.errors import BudgetError, ConversionError, ScheduleError
from fskernel.graded import GradedTensor
from fskernel.k_search.search import SearchResult, search
from fskernel.kernels import ops
from fskernel.kernels.info import build_info
from fskernel.kernels.native import last_kernel
from fskernel.network import steps
from fskernel.network.network import FSNetwork
from fskernel.network.stats import RunStats
from fskernel.network.stored.load import load
from fskernel.onnx_files.network import from_onnx
from fskernel.preprocessing import Preprocessing
from fskernel.rate.network import RateNetwork
from fskernel.rate.trains import KernelRateNetwork
from fskernel.spikes import FittedSpikes, SpikeTensor, decode, encode
from fskernel.timeline.schedule_run import ScheduleRun
from fskernel.timeline.simulation import schedule

__all__ = [
    "BudgetError",
    "ClippingWarning",
    "ConversionError",
    "FSAvgPool2d",
    "FSConv2d",
    "FSLinear",
    "FSMaxPool2d",
    "FSNetwork",
    "FSNeuron",
    "FittedNeuron",
    "FittedSpikes",
    "GradedTensor",
    "KernelRateNetwork",
    "Preprocessing",
    "RateNetwork",
    "ReplaceReport",
    "Replacement",
    "RunStats",
    "ScheduleError",
    "ScheduleRun",
    "SearchResult",
    "SpikeTensor",
    "__version__",
    "build_info",
    "convert",
    "decode",
    "encode",
    "energy",
    "fidelity",
    "fit_neuron",
    "from_onnx",
    "from_spikes",
    "load",
    "models",
    "neurobench",
    "neuron",
    "paper_pools",
    "plots",
    "reference",
    "register_activation",
    "replace",
    "schedule",
    "search",
    "set_isa",
    "steps",
    "last_kernel",
    "to_spikes",
]


def set_isa(name: str | None) -> None:
    """Runs the kernels of one instruction set ("avx512vnni", "avx2", "portable"); None: the best.

    Raises:
        ValueError: not built, or not supported by this processor.
    """
    ops.set_isa(name)


logging.getLogger(__name__).addHandler(logging.NullHandler())  # silent until somebody listens
_paths.keep()
