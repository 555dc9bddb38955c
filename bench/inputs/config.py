"""What can be configured: the schemas behind conf/."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import II, MISSING, DictConfig, OmegaConf


@dataclass
class InputConf:
    """How an image becomes the network's input."""

    resize: int | None = None  # shorter side in pixels; null: what the weights ask for, or 256
    crop: int = 224  # side of the centre crop
    mean: list[float] = field(default_factory=lambda: [0.485, 0.456, 0.406])
    std: list[float] = field(default_factory=lambda: [0.229, 0.224, 0.225])


@dataclass
class ModelConf:
    """The dense network (ANN) that is converted."""

    _target_: str = MISSING  # package.function that returns an nn.Module
    args: dict[str, Any] = field(default_factory=dict)  # keyword arguments of that function
    # auto | own (the function's) | random | a file (.pth, .safetensors) | a torchvision name
    weights: str = "auto"
    # Packages of PyPI that hold the function and, as a .pth file, the weights that auto takes.
    packages: list[str] = field(default_factory=list)
    name: str | None = None  # in tables; null: the last part of _target_
    input: InputConf = field(default_factory=InputConf)


@dataclass
class NeuronConf:
    """The FS neuron and how weights are rounded; see fskernel.convert."""

    K: int = 8
    # "max", "percentile:99.9", "mse", "logits", a number, or "top:6": the top word stands for 6
    alpha: Any = "max"
    rounding: str = "nearest"
    weight_bits: Any = 8  # 8 | 16 | auto
    correct: str | None = None  # null | bias | least_squares, see fskernel.convert
    bottleneck: str = "graded"  # what layers without a ReLU emit: graded | spiking
    average_pool: bool = False  # average-pool in place of max-pool, in the ANN too
    fitted: bool = False  # activations that are no ReLU become fitted neurons, see fskernel.convert


@dataclass
class DataConf:
    """Where the images come from."""

    kind: str = MISSING  # samples | imagefolder | wnid_files | cifar10 | digits
    root: str | None = None
    # same: further images of these | samples: sample photographs | train: the training split
    calibrate_on: str = "same"


@dataclass
class BaselineConf:
    """The rate-coded baseline."""

    kind: str = MISSING  # rate | none
    T: int = 550  # time steps of one image
    images: int | None = None  # images simulated; null: one batch
    normalise: str = "percentile"  # thresholds: percentile | max | robust | balanced
    percentile: float = 99.9  # of the calibration activations, for percentile and robust
    balanced_for: int = 32  # time steps that balanced thresholds are best for
    reset: str = "subtract"  # of a membrane that fired: subtract | zero
    input: str = "analog"  # the image as currents, or as random spikes: analog | poisson
    burn_in: int = 0  # first steps that the readout does not sum
    calibration: int = 4  # images for the thresholds, at most those of the calibration set
    simulate: str = "all"  # all: T steps; transient: 3 x depth steps, the rest extrapolated
    every: int | None = None  # steps between two readings of its answers; null: none, or see curve
    # fused: integer weights, on the CPU's or the GPU's kernels | torch: plain torch | auto: fused
    # where the kernels have the reset and the input
    simulator: str = "auto"
    path: str = "auto"  # of sums on the CPU's kernels: dense | events (spike by spike) | auto
    curve: bool = False  # answers over time, of percentile and balanced thresholds: 64 readings


@dataclass
class RivalsConf:
    """Whom the FS network is compared with: experiment=rivals, and experiment=scaling."""

    K: list[int] = field(default_factory=lambda: [4, 6, 8, 10])  # FS networks, beside that of K
    only: list[str] = field(default_factory=list)  # parts of names; none: everyone
    memory: bool = True  # measure it, in a process of its own for each
    slow_rounds: int = 3  # of those that take seconds for an image
    slow_images: int = 4  # that they are shown


@dataclass
class ScalingConf:
    """What experiment=scaling varies, an axis a list; an empty list leaves its axis out."""

    size: list[int] = field(default_factory=lambda: [64, 96, 128, 160, 224, 288, 384, 448])
    width: list[int] = field(default_factory=lambda: [16, 32, 64, 96, 128])
    width_argument: str = "width_per_group"  # of the function model._target_, that width sets
    K: list[int] = field(default_factory=lambda: [1, 2, 4, 6, 8, 9, 10, 12, 15])
    batch: list[int] = field(default_factory=lambda: [1, 2, 4, 8, 16])
    threads: list[int] | None = None  # null: 1 to the number of cores
    thread_batches: list[int] = field(default_factory=lambda: [1, 8])  # an axis of threads for each


@dataclass
class BackendConf:
    """Which kernels run."""

    device: str = "cpu"  # cpu | cuda | cuda:N | auto (a GPU if there is one) | emulated
    isa: str | None = None  # null: the best of this processor; else a name of fskernel.ops
    plane_bits: int = 0  # bit-planes one multiplication takes at once: 1, 2, 4, 8; 0: all


LOGGERS = ("csv", "tensorboard", "wandb")  # the flags of LoggerConf that turn one on


@dataclass
class LoggerConf:
    """Where results go besides results.json: logger=csv, or several, logger=[csv,wandb]."""

    csv: bool = False
    tensorboard: bool = False
    wandb: bool = False
    project: str = "fskernel"  # wandb only
    mode: str = "offline"  # wandb only: offline | online
    weights: bool = False  # save the converted network, too; wandb keeps it as an artifact


@dataclass
class Config:
    """Everything `bench/run.py` can be told."""

    model: ModelConf = field(default_factory=ModelConf)
    neuron: NeuronConf = field(default_factory=NeuronConf)
    data: DataConf = field(default_factory=DataConf)
    baseline: BaselineConf = field(default_factory=BaselineConf)
    backend: BackendConf = field(default_factory=BackendConf)
    logger: LoggerConf = field(default_factory=LoggerConf)
    rivals: RivalsConf = field(default_factory=RivalsConf)
    scaling: ScalingConf = field(default_factory=ScalingConf)
    # networks: the ANN, FS and rate coding | rivals: other runtimes, too | scaling: over the axes
    measure: str = "networks"
    K: int = II("neuron.K")  # time steps of the FS neuron
    batch: int = 1  # images in one call
    threads: int = 1  # one thread gives the steadiest figures
    images: int | None = None  # images evaluated; null: a folder's all, 16 samples
    calibration: int = 16  # further images, for alpha and the percentile
    seed: int = 0
    rounds: int = 20  # timed rounds; every round runs the ANN and the FS network once
    warmup: int = 3  # rounds that are not timed
    energy_rounds: int = 3  # seconds of each network in which energy is measured; 0: none
    fidelity: int = 4  # images compared with the paper's equations in float64; 0: none
    check: bool = True  # compare one image bit for bit with the oracle before timing
    figures: Any = True  # draw spikes, words and neurons: false | true or png | svg | pdf
    report: bool = True  # report.html: what was found, on one page
    rows: list[str] = field(default_factory=list)  # one job a row: "K=6 neuron.weight_bits=16"
    next: list[str] = field(default_factory=list)  # what to type next, said at the end


@dataclass
class SearchNeuronConf:
    """The FS neuron but for its K, and how weights are rounded; see fskernel.convert."""

    alpha: float | str = "max"
    rounding: str = "nearest"
    weight_bits: int | str = 8
    correct: str | None = None
    bottleneck: str = "graded"
    average_pool: bool = False  # average-pool in place of max-pool, in the ANN too


@dataclass
class SearchConf:
    """Everything `bench/search.py` can be told; budget to timing are fskernel.search's."""

    model: ModelConf = field(default_factory=ModelConf)
    data: DataConf = field(default_factory=DataConf)
    neuron: SearchNeuronConf = field(default_factory=SearchNeuronConf)
    budget: float = 0.01
    criterion: str = "agreement"
    K_range: list[int] = field(default_factory=lambda: [3, 10])
    per_layer: bool = True
    max_evaluations: int = 100
    timing: bool = True
    folder: str | None = None  # keeps evaluations from run to run; null: the run directory
    report: bool = True  # report.html: what was found, on one page
    calibration: int = 100  # images that K is chosen on
    images: int = 16  # further images that the network found is scored on
    threads: int = 1
    seed: int = 0


@dataclass
class TrainConf:
    """Everything `bench/train.py` can be told."""

    model: ModelConf = field(default_factory=ModelConf)
    data: DataConf = field(default_factory=DataConf)
    epochs: int = 60
    batch: int = 128
    lr: float = 0.2  # the largest; it rises over the first fifth and falls to zero
    momentum: float = 0.9
    weight_decay: float = 5e-4
    smallest: int | None = None  # the images' side in the first epoch, pixels; null: never shrunk
    grown: float = 0.65  # from this share of the epochs on they have their own size
    bfloat16: bool = True  # convolutions in bfloat16 where the processor has it, weights in float32
    seed: int = 0
    threads: int | None = None  # null: all cores this process may use
    out: str = "outputs/train"


def network_name(model: DictConfig) -> str:
    """What tables and folders call a network: its name, or what its function is given or called."""
    given = model.args.get("model_name") if model.args else None  # as timm.create_model takes it
    return model.name or given or model["_target_"].rpartition(".")[2]


def register() -> None:
    """Makes the schemas known to Hydra; a file of conf/ names its own first in its defaults.

    And the resolver `called`, with which conf/ names folders after networks.
    """
    store = ConfigStore.instance().store
    store(name="schema", node=Config)
    store(name="search_schema", node=SearchConf)
    store(name="train_schema", node=TrainConf)
    OmegaConf.register_new_resolver("called", _folder_name, replace=True)


def _folder_name(model: DictConfig) -> str:
    return network_name(model).replace("/", "-")
