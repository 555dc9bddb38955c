"""The steps of a converted network: what one layer does to integer activations.

A step reads and gives NHWC-contiguous integer tensors and calls one function of a backend:
`fskernel.ops` (the kernels) or an oracle of `fskernel.reference`, which share their signatures.
What only moves codes is torch's on all of them.
"""

from __future__ import annotations

from torch import Tensor

from fskernel.network.steps.affine import ConvStep, EncodeStep, ReadoutStep
from fskernel.network.steps.gates import GateStep
from fskernel.network.steps.heads import MapReadoutStep, OutputStep
from fskernel.network.steps.moving import ConcatStep, MoveStep
from fskernel.network.steps.pools import MeanPoolStep, PoolStep
from fskernel.network.steps.step import Step
from fskernel.network.stored.step_fields import StepFields

__all__ = [
    "STEPS",
    "ConcatStep",
    "ConvStep",
    "EncodeStep",
    "GateStep",
    "MapReadoutStep",
    "MeanPoolStep",
    "MoveStep",
    "OutputStep",
    "PoolStep",
    "ReadoutStep",
    "Step",
    "read_step",
]

STEPS = {
    "encode": EncodeStep,
    "conv": ConvStep,
    "max_pool": PoolStep,
    "sum_pool": PoolStep,
    "mean_pool": MeanPoolStep,
    "concat": ConcatStep,
    "move": MoveStep,
    "gate": GateStep,
    "readout": ReadoutStep,
    "map_readout": MapReadoutStep,
    "output": OutputStep,
}


def read_step(spec: object, tensors: dict[str, Tensor], place: str) -> Step:
    """The step that `Step.spec` and its tensors describe.

    Args:
        spec: what stands in a file, by whomever.
        tensors: the step's own, by the names of its buffers.
        place: where it stands in the file, for messages.

    Raises:
        ValueError: naming the place and the field that is missing, unknown or of another type, or
            the tensor. What the step is worth among others is for `step_checks` to say.
    """
    fields = StepFields(spec, place, STEPS)
    step = STEPS[fields.op].from_fields(fields, tensors)
    fields.end()
    return step
