"""What an image may cost in energy, estimated in three ways side by side.

Nothing here is measured. An estimate multiplies counted operations by published energies of single
operations, and what it says depends on what it counts. The first is the one the literature of
spiking networks uses; the second asks the same of an int8 network; the third adds the memory that
both have to read and write (for its weight see arXiv 2409.08290). All are for one image, and none
counts a chip's leakage, clock, control or network, DRAM, or the way an image takes to it.

    logits, stats = net.run(images)
    for row in fskernel.energy.estimate(net, stats):
        print(row.name, row.ann_uj, row.fs_uj)

They speak of a chip that handles spikes as events. On a CPU or GPU a network of spike words runs as
an integer convolution and does the multiplications of an int8 network, whatever its spikes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from fskernel.network.stats import RunStats, map_sizes
from fskernel.network.steps import GateStep

if TYPE_CHECKING:
    from fskernel.network.network import FSNetwork

HOROWITZ = (
    'M. Horowitz, "Computing\'s energy problem (and what we can do about it)", ISSCC 2014: 45 nm, '
    "0.9 V"
)


class Constant(NamedTuple):
    """A number the estimates rest on: value in `unit`, what it is, and where it comes from."""

    value: float
    unit: str
    what: str
    source: str


CONSTANTS = {
    "mac_fp32": Constant(4.6, "pJ", "float32 multiplication (3.7) and addition (0.9)", HOROWITZ),
    "add_fp32": Constant(0.9, "pJ", "float32 addition", HOROWITZ),
    "mult_int8": Constant(0.2, "pJ", "multiplication of 8-bit integers", HOROWITZ),
    "mult_int16": Constant(
        math.sqrt(0.2 * 3.1),
        "pJ",
        "multiplication of 16-bit integers",
        "not published there: the geometric mean of 8 bits (0.2) and 32 bits (3.1), as 16 is of 8 "
        "and 32; the cost grows with nearly the square of the bits",
    ),
    "add_int32": Constant(0.1, "pJ", "addition or comparison of 32-bit integers", HOROWITZ),
    "sram_byte": Constant(
        20 / 8, "pJ", "a byte of a 64-bit access (20 pJ) to an SRAM of 32 kB", HOROWITZ
    ),
    "reuse": Constant(
        16,
        "MACs",
        "multiplications that share a byte a dense engine reads",
        "assumed: an array of 16 x 16 multipliers that keeps its sums in registers",
    ),
    "membrane_bytes": Constant(4, "bytes", "of a membrane in memory", "int32, as in the contract"),
    "event_bytes": Constant(
        4, "bytes", "of a spike on its way", "assumed: the address of its neuron, 32 bits"
    ),
}


class LayerWork(NamedTuple):
    """What one layer does for one image.

    Attributes:
        name: of the layer.
        macs: multiply-accumulates of the dense network (ANN), those that meet padding included.
        outputs: values that the layer gives.
        sops: synaptic operations. spikes: that its neurons emit.
        graded_macs: multiply-accumulates on graded inputs, of `graded_bytes` each.
        K: time steps of its neurons, 0 if it has none (a linear bottleneck, the readout).
        weight_bytes: of one weight in the FS network; the int8 ANN has one.
        gate_ops: of a gate, products of two maps.
    """

    name: str
    macs: int
    outputs: int
    sops: float
    spikes: float
    graded_macs: float = 0
    K: int = 0
    weight_bytes: int = 1
    graded_bytes: int = 2
    gate_ops: int = 0


class Estimate(NamedTuple):
    """Energy of one image by one way of counting.

    Attributes:
        name: "proxy", "int8" or "memory". title: what FS is compared with, and what is counted.
        ann, fs: pJ by what it is spent on.
        leaves_out: what is not counted.
    """

    name: str
    title: str
    ann: dict[str, float]
    fs: dict[str, float]
    leaves_out: str

    @property
    def ann_uj(self) -> float:
        """Of the dense network, in microjoules."""
        return sum(self.ann.values()) * 1e-6

    @property
    def fs_uj(self) -> float:
        """Of the FS network, in microjoules."""
        return sum(self.fs.values()) * 1e-6


def estimate(net: FSNetwork, stats: RunStats) -> list[Estimate]:
    """The three estimates for a run, as means over its images.

    Args:
        net: the network. stats: of `net.run(images)`.

    Raises:
        ValueError: stats are of no image, or of another network.
    """
    if not stats.images:
        raise ValueError("stats are of no image: give those of net.run on at least one")

    def means(counts: Mapping) -> dict[str, float]:
        return {name: float(n.double().mean()) for name, n in counts.items()}

    return estimates(
        layer_work(net, stats.size, means(stats.sops), means(stats.spikes), stats.graded_macs)
    )


def layer_work(
    net: FSNetwork,
    size: tuple[int, int],
    sops: Mapping[str, float],
    spikes: Mapping[str, float],
    graded_macs: Mapping[str, float],
) -> list[LayerWork]:
    """The work of every convolution, gate and of the readout, in execution order.

    Args:
        net: the network. size: rows and columns of an image.
        sops, spikes, graded_macs: of one image, by the layer's name; a missing one is 0.

    Raises:
        ValueError: a count belongs to no layer of the network.
    """
    steps = [step for step in net.steps if step.affine or step.op == "gate"]
    known = {step.name for step in steps}
    for name in (*sops, *spikes, *graded_macs):
        if name not in known:
            raise ValueError(f"'{name}' is counted, but net has no such layer: give its own stats")
    macs, sizes = dense_macs(net, *size), map_sizes(net.steps, *size)
    codes = {step.name: step.code for step in net.steps}

    def graded_bytes(source: str) -> int:
        return 1 if -128 <= codes[source].x_min and codes[source].x_max <= 127 else 2

    def code_bytes(source: str) -> int:
        return 1 if 1 <= codes[source].bits <= 8 else graded_bytes(source)

    def gate(step: GateStep) -> LayerWork:
        products = step.gate_ops(sizes[step.name])
        wide = max(map(code_bytes, step.sources))
        return LayerWork(
            step.name,
            0,
            products,
            0,
            spikes.get(step.name, 0),
            K=step.code.K,
            weight_bytes=wide,
            graded_bytes=wide,
            gate_ops=products,
        )

    found = []
    for step in steps:
        if step.op == "gate":
            found.append(gate(step))
            continue
        outputs = len(step.weights[0]) * math.prod(sizes[step.name])
        found.append(
            LayerWork(
                step.name,
                macs[step.name],
                outputs,
                sops.get(step.name, 0),
                spikes.get(step.name, 0),
                graded_macs.get(step.name, 0),
                step.code.K if step.spiking else 0,
                max(weight.element_size() for weight in step.weights),
                max(map(graded_bytes, step.sources)),
            )
        )
    return found


def dense_macs(net: FSNetwork, height: int, width: int) -> dict[str, int]:
    """Multiply-accumulates of the dense network, by layer, for an image of height x width.

    As they are usually counted: with those that meet padding, without pools, residual additions,
    batch norms of their own and other connections that only pass channels on.
    """
    sizes = map_sizes(net.steps, height, width)
    return {s.name: s.dense_macs(sizes[s.name]) for s in net.steps if s.affine}


def estimates(layers: Iterable[LayerWork]) -> list[Estimate]:
    """The three estimates from counted work.

    1. "proxy", of the literature on spiking networks: 4.6 pJ a MAC of the float32 ANN, 0.9 pJ a
       SOP; graded MACs are MACs. Neurons cost nothing.
    2. "int8": the ANN with 8-bit integers, a comparison a ReLU, against integer additions; a neuron
       costs K comparisons and a subtraction a spike. The shift that makes a spike worth its
       threshold is taken for wiring, and scaling the sum is left out of both. What spikes of
       fitted neurons are worth is no power of two: multiplying by it, once a step and membrane,
       is left out, too.
    3. "memory": the second, and bytes to and from SRAM. ANN: a byte of weight and one of input for
       every `reuse` MACs, and its outputs. FS: for every SOP its weight, and the membrane to and
       fro; a membrane's reading at each of K steps and its writing at a spike; every spike written
       and read as an event; graded MACs as the ANN's, their sums written to the membranes, and a
       linear layer's sums read and written as graded values.

    A product of two maps in a gate costs both networks a MAC, and in the third both its factors,
    which nothing else shares. Where there are gates, they are a line of their own.
    """
    layers = list(layers)
    c = {name: constant.value for name, constant in CONSTANTS.items()}
    macs = sum(w.macs for w in layers)
    sops = sum(w.sops for w in layers)
    graded = sum(w.graded_macs for w in layers)

    def total(part) -> float:
        return sum(part(w) for w in layers)

    def of_layers(part, spiking: bool) -> float:
        return sum(part(w) for w in layers if (w.K > 0) == spiking)

    def of_gates(name: str, price) -> dict[str, float]:
        found = [w for w in layers if w.gate_ops]
        return {name: sum(w.gate_ops * price(w) for w in found)} if found else {}

    def product(w: LayerWork) -> float:
        return _mult(w, c) + c["add_int32"]

    proxy = Estimate(
        "proxy",
        "float32 ANN, arithmetic only",
        {"MACs": macs * c["mac_fp32"]} | of_gates("gates", lambda w: c["mac_fp32"]),
        {"SOPs": sops * c["add_fp32"], "graded MACs": graded * c["mac_fp32"]}
        | of_gates("gates", lambda w: c["mac_fp32"]),
        "neurons, memory; nobody would build the float32 ANN",
    )
    int8 = Estimate(
        "int8",
        "int8 ANN, arithmetic only",
        {
            "MACs": macs * (c["mult_int8"] + c["add_int32"]),
            "ReLUs": of_layers(lambda w: 0 if w.gate_ops else w.outputs, True) * c["add_int32"],
        }
        | of_gates("gates", lambda w: c["mult_int8"] + c["add_int32"]),
        {
            "SOPs": sops * c["add_int32"],
            "graded MACs": total(lambda w: w.graded_macs * product(w)),
            "neurons": of_layers(lambda w: w.outputs * w.K + w.spikes, True) * c["add_int32"],
        }
        | of_gates("gates", product),
        "memory, which costs more than arithmetic",
    )
    membrane, event, reuse = c["membrane_bytes"], c["event_bytes"], c["reuse"]
    ann_bytes = {
        "weights and inputs": macs * 2 / reuse,
        "outputs": total(lambda w: w.outputs),
    } | of_gates("factors of gates", lambda w: 2)
    fs_bytes = {
        "weights": total(lambda w: w.sops * w.weight_bytes),
        "membranes": sops * 2 * membrane,
        "neurons' membranes": membrane * of_layers(lambda w: w.outputs * w.K + w.spikes, True),
        "spikes": total(lambda w: w.spikes) * 2 * event,
        "graded values": total(
            lambda w: (
                w.graded_macs * (w.weight_bytes + w.graded_bytes) / reuse
                + (w.outputs * membrane if w.graded_macs else 0)
            )
        )
        + of_layers(lambda w: w.outputs * (2 if w.gate_ops else membrane + 2), False),
    } | of_gates("factors of gates", lambda w: 2 * w.graded_bytes)
    memory = Estimate(
        "memory",
        "int8 ANN, arithmetic and SRAM",
        int8.ann | {name: n * c["sram_byte"] for name, n in ann_bytes.items()},
        int8.fs | {name: n * c["sram_byte"] for name, n in fs_bytes.items()},
        "DRAM, the network on chip, leakage; memories larger than 32 kB",
    )
    return [proxy, int8, memory]


def _mult(w: LayerWork, c: Mapping[str, float]) -> float:
    return c["mult_int8" if max(w.weight_bytes, w.graded_bytes) == 1 else "mult_int16"]
