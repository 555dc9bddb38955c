"""fskernel: Few-Spikes (FS) spiking convolutional networks in one fused pass, bit-exact.

    net = fskernel.convert(trained_cnn, calibration_images, K=8)
    logits, stats = net.run(images)

The contract, the neuron and the vocabulary: docs/how-it-works.md.
"""

from fskernel import energy, models, neuron, plots, reference, steps
from fskernel._version import __version__
from fskernel.convert import convert, paper_pools
from fskernel.errors import BudgetError, ConversionError
from fskernel.fidelity import fidelity
from fskernel.graded import GradedTensor
from fskernel.info import build_info
from fskernel.layers import FSAvgPool2d, FSConv2d, FSLinear, FSMaxPool2d
from fskernel.network import FSNetwork
from fskernel.neuron import FSNeuron, from_spikes, to_spikes
from fskernel.rate import RateNetwork
from fskernel.replace import Replacement, ReplaceReport, replace
from fskernel.search import SearchResult, search
from fskernel.spikes import SpikeTensor, decode, encode
from fskernel.stats import RunStats
from fskernel.storage import load

__all__ = [
    "BudgetError",
    "ConversionError",
    "FSAvgPool2d",
    "FSConv2d",
    "FSLinear",
    "FSMaxPool2d",
    "FSNetwork",
    "FSNeuron",
    "GradedTensor",
    "RateNetwork",
    "ReplaceReport",
    "Replacement",
    "RunStats",
    "SearchResult",
    "SpikeTensor",
    "__version__",
    "build_info",
    "convert",
    "decode",
    "encode",
    "energy",
    "fidelity",
    "from_spikes",
    "load",
    "models",
    "neuron",
    "paper_pools",
    "plots",
    "reference",
    "replace",
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
    from fskernel import ops

    ops.set_isa(name)


def last_kernel() -> str:
    """Name of the kernel that ran last in this process."""
    from fskernel import ops

    return ops.last_kernel()
