"""The networks that are compared, the images they are shown, and where they run."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

import fskernel as fs
from bench.errors import UserError
from bench.inputs import data
from bench.inputs.checks import choose_alpha
from bench.inputs.config import network_name
from bench.inputs.material import gather
from bench.measures import networks, step_figures
from bench.output import machine
from bench.output.drawing import Shown
from bench.output.progress import console, say
from bench.output.record import Record
from bench.output.report import history
from fskernel.graph import Graph
from fskernel.kernels import ops
from fskernel.kernels.device import cuda_fault
from fskernel.tracing.trace import trace


@dataclass
class Subject:
    """The two networks and the images they are shown."""

    ann: nn.Module  # both on the CPU
    graph: Graph  # the ANN's layers; net.graph may be a corrected one
    net: fs.FSNetwork
    evaluated: data.Images
    images: int  # how many of them
    calibration: Tensor  # float32 [N, C, H, W]

    def on(self, device: str) -> tuple[nn.Module, fs.FSNetwork]:
        """The networks as they are measured, on a device; those of the CPU stay where they are."""
        if device == "cpu":
            return self.ann, self.net
        return copy.deepcopy(self.ann).to(device), copy.deepcopy(self.net).to(device)

    def first_shown(self, network: str, tally: networks.Tally) -> Shown:
        """The first image that was evaluated, to be drawn.

        Args:
            network: what the figures call it. tally: of the images that it was shown.
        """
        x = tally.kept[0][0][:1]
        return Shown(network, self.evaluated.first_name(), self.evaluated.pixels_of(x[0]), x)


def reset(cfg: DictConfig) -> None:
    """Seeds, threads and kernels: the jobs of a sweep share one process."""
    random.seed(cfg.seed)
    np.random.seed(cfg.seed)
    torch.manual_seed(cfg.seed)
    torch.set_num_threads(cfg.threads)
    try:
        ops.set_isa(cfg.backend.isa)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"backend.isa={cfg.backend.isa}: {error}") from error


def choose_device(cfg: DictConfig) -> str:
    """Where to run: cpu, cuda:N or emulated.

    Raises:
        UserError: a GPU is asked for that cannot be used, and why.
    """
    wanted = cfg.backend.device
    asked = f"backend.device={wanted} asks for it"
    if wanted in ("cpu", "emulated"):
        where = "the CPU" if wanted == "cpu" else "the emulator"
        say(f"backend {wanted}: runs on {where}, because {asked}")
        return wanted
    place = "cuda:0" if wanted in ("auto", "cuda") else wanted
    fault = cuda_fault(place)
    if fault and wanted == "auto":
        say(f"backend cpu: runs on the CPU, because {fault}")
        return "cpu"
    if fault:
        raise UserError(f"backend.device={wanted}: {fault}")
    because = "it is there (backend=cpu takes the CPU)" if wanted == "auto" else asked
    say(f"backend cuda: runs on {place}, because {because}")
    return place


def timing_device(cfg: DictConfig) -> str:
    """As `choose_device`, of what only times.

    Raises:
        UserError: the device cannot be used, or is the emulator.
    """
    device = choose_device(cfg)
    if device == "emulated":
        raise UserError("backend=emulated: nothing is timed in the emulator; use cpu or cuda")
    return device


def opening(cfg: DictConfig, device: str, command: str | None) -> dict[str, object]:
    """What every record begins with.

    Args:
        cfg: the configuration. device: where it runs. command: what repeats the run.
    """
    return {
        "measure": cfg.measure,
        "command": command,
        "started": machine.now(),
        "configuration": history.configuration(cfg),
        "K": cfg.K,
        "batch": cfg.batch,
        "threads": cfg.threads,
        "seed": cfg.seed,
        "neuron": OmegaConf.to_container(cfg.neuron, resolve=True) | {"K": cfg.K},
        "model": network_name(cfg.model),
        "device": device,
        "versions": machine.versions(),
        "machine": machine.machine(device),
    }


def prepare(cfg: DictConfig, record: Record) -> Subject:
    """Builds the ANN, reads the calibration images, converts."""
    found = gather(cfg, record)
    ann, calibration = found.ann, found.calibration
    say(f"converting {record.values['model']} with {len(calibration)} calibration images")
    try:
        graph = trace(ann, images=calibration)
        net = fs.convert(
            graph,
            calibration,
            K=cfg.K,
            **conversion(cfg, cfg.K),
            progress=console.is_terminal,
        )
    except ValueError as error:
        raise UserError(f"{record.values['model']} cannot be converted: {error}") from error
    net.plane_bits = cfg.backend.plane_bits
    height, width = calibration.shape[2:]
    int8 = int8_share(net, height, width)
    if cfg.neuron.weight_bits == "auto":
        record.note(f"layers with 8-bit weights do {int8:.1%} of the ANN's MACs")
    record.add(
        weights=found.weights.name,
        random_weights=found.weights.random,
        input=[height, width],
        neurons=net.neurons,
        calibration=len(calibration),
        ann=networks.ann_bytes(ann, net.graph, calibration),
        fs={
            "isa": ops.current_isa() if record.values["device"] == "cpu" else "cuda",
            "plane_bits": net.plane_bits,
            "depth": net.depth,
            **step_figures.by_formula(net),
            "weight_bytes": net.weight_bytes,
            "int8_macs": int8,
            "activation_bytes": net.activation_bytes(height, width),
        },
    )
    images = cfg.images or len(found.evaluated.items)
    return Subject(ann, graph, net, found.evaluated, images, calibration)


def conversion(cfg: DictConfig, K: int) -> dict[str, object]:
    """What fskernel.convert is told of the neuron beside its K time steps."""
    neuron = cfg.neuron
    return {
        "alpha": choose_alpha(neuron.alpha, K),
        "rounding": neuron.rounding,
        "weight_bits": neuron.weight_bits,
        "correct": neuron.correct,
        "bottleneck": neuron.bottleneck,
    } | ({"neuron": "fitted"} if neuron.fitted else {})


def int8_share(net: fs.FSNetwork, height: int, width: int) -> float:
    """The share of the ANN's MACs in layers whose weights have 8 bits."""
    macs = fs.energy.dense_macs(net, height, width)
    short = {step.name for step in net.steps if getattr(step, "info", {}).get("weight_bits") == 8}
    return sum(n for name, n in macs.items() if name in short) / sum(macs.values())
