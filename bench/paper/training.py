"""The training of the networks whose weights come with the package."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import save_file
from torch import Tensor, nn

from bench.errors import UserError
from bench.inputs import in_memory, models
from bench.inputs.checks import known_keys
from bench.inputs.config import TrainConf, network_name
from bench.inputs.data import TRAINABLE, load_split
from bench.inputs.in_memory import InMemory
from bench.measures.stats import wilson
from bench.output import machine
from bench.output.claims import claim
from bench.output.cores import usable_cores
from bench.output.progress import bar, say
from fskernel.files import replacing, write_text

CHECKPOINT = "checkpoint.pt"
FEWEST_STEPS = 10  # of a schedule that rises and falls
SMALLEST, GRAIN = 8, 4  # pixels: the side of shrunk images, and what it is a multiple of
# Keys that decide what the weights become.
ASKED = (
    *("epochs", "batch", "lr", "momentum", "weight_decay", "smallest", "grown"),
    *("bfloat16", "seed"),
)


def validate(cfg: DictConfig) -> None:
    """Refuses what makes no sense, naming the key, value and cure."""
    known_keys(cfg, OmegaConf.structured(TrainConf))
    for key in ("epochs", "batch"):
        if cfg[key] < 1:
            raise UserError(f"{key}={cfg[key]}: must be at least 1")
    if cfg.threads is not None and not 1 <= cfg.threads <= usable_cores():
        raise UserError(f"threads={cfg.threads}: this process may use 1 to {usable_cores()} cores")
    if cfg.data.kind not in TRAINABLE:
        raise UserError(f"data={cfg.data.kind}: training knows {' and '.join(TRAINABLE)}")
    if not cfg.lr > 0:
        raise UserError(f"lr={cfg.lr}: must be positive")
    if not 0 <= cfg.momentum < 1:
        raise UserError(f"momentum={cfg.momentum}: must be in [0, 1)")
    if not cfg.weight_decay >= 0:
        raise UserError(f"weight_decay={cfg.weight_decay}: must not be negative")
    if not 0 < cfg.grown <= 1:
        raise UserError(f"grown={cfg.grown}: must be a share of the epochs, above 0 and at most 1")
    if not 0 <= cfg.seed < 2**32:
        raise UserError(f"seed={cfg.seed}: must be in 0 to 2^32 - 1")
    if cfg.model.weights not in ("auto", "random"):
        raise UserError(f"model.weights={cfg.model.weights}: training starts from random weights")


class Training:
    """A network, its optimiser, and how far they have come."""

    def __init__(self, cfg: DictConfig, images: InMemory, directory: Path):
        if len(images) < cfg.batch:
            raise UserError(
                f"batch={cfg.batch}: there are {len(images)} training images; use at most that"
            )
        own = min(images.images.shape[1:3])
        if cfg.smallest is not None and not SMALLEST <= cfg.smallest <= own:
            raise UserError(
                f"smallest={cfg.smallest}: must be {SMALLEST} to {own}, the side of {images.name}"
            )
        self.cfg, self.images, self.directory = cfg, images, directory
        args = OmegaConf.to_container(cfg.model.args, resolve=True)
        random = OmegaConf.merge(cfg.model, {"weights": "random"})
        self.module = models.build(random, cfg.seed, say)[0].to(memory_format=torch.channels_last)
        classes = models.classes(self.module, self.read(images.images[:1]))
        if classes != images.classes:
            raise UserError(
                f"model.args: the network knows {classes} classes: {images.name} has "
                f"{images.classes}"
            )
        decayed = [p for p in self.module.parameters() if p.dim() > 1]
        others = [p for p in self.module.parameters() if p.dim() <= 1]
        self.optimiser = torch.optim.SGD(
            [{"params": decayed}, {"params": others, "weight_decay": 0.0}],
            lr=cfg.lr,
            momentum=cfg.momentum,
            nesterov=cfg.momentum > 0,
            weight_decay=cfg.weight_decay,
        )
        self.steps = len(images) // cfg.batch
        if self.steps * cfg.epochs < FEWEST_STEPS:
            raise UserError(
                f"epochs={cfg.epochs} batch={cfg.batch}: {len(images)} images give only "
                f"{self.steps * cfg.epochs} steps, and the schedule needs {FEWEST_STEPS}"
            )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser,
            cfg.lr,
            total_steps=self.steps * cfg.epochs,
            pct_start=0.2,
            anneal_strategy="linear",
            cycle_momentum=False,
        )
        self.epochs, self.seconds = 0, 0.0
        # Whoever asks for another schedule or other data starts anew.
        self.asked = {key: OmegaConf.to_container(cfg)[key] for key in ASKED} | {
            "images": len(images),
            "data": images.name,
            "args": args,
        }

    def read(self, images: Tensor) -> Tensor:
        """The network's input out of uint8 [N, H, W, C]."""
        size = self.cfg.model.input
        return in_memory.normalised(images, list(size.mean), list(size.std))

    def resume(self) -> bool:
        """Goes on from the folder's checkpoint, if it is one of the same command."""
        path = self.directory / CHECKPOINT
        if not path.is_file():
            for other in self.directory.glob("*.safetensors"):
                raise UserError(
                    f"out={self.cfg.out}: {other} is of a training whose {CHECKPOINT} is gone: say "
                    "out=DIR for this one, or move that file away"
                )
            return False
        try:
            saved = torch.load(path, weights_only=True)
            asked = saved["asked"]
        except Exception as error:  # a damaged file raises many types
            raise UserError(f"{path} cannot be read ({error}): remove it to start anew") from error
        if asked != self.asked:
            raise UserError(
                f"{path} is of another training ({asked}): say out=DIR for this one, or remove "
                "that folder"
            )
        self.module.load_state_dict(saved["module"])
        self.optimiser.load_state_dict(saved["optimiser"])
        self.schedule.load_state_dict(saved["schedule"])
        self.epochs, self.seconds = saved["epochs"], saved["seconds"]
        return True

    def save(self) -> None:
        """The state after a whole epoch."""
        state = {
            "asked": self.asked,
            "module": self.module.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "epochs": self.epochs,
            "seconds": self.seconds,
        }
        # torch writes a path's name into the file, and does not say why it cannot write.
        with replacing(self.directory / CHECKPOINT) as part, open(part, "wb") as file:
            torch.save(state, file)

    def side(self, epoch: int) -> int:
        """The side of an epoch's images, pixels: small ones come first, which take less time.

        It grows linearly, in steps of GRAIN (progressive resizing).
        """
        own = min(self.images.images.shape[1:3])
        ramp = self.cfg.grown * self.cfg.epochs
        if self.cfg.smallest is None or epoch >= ramp:
            return own
        side = self.cfg.smallest + (own - self.cfg.smallest) * epoch / ramp
        return max(self.cfg.smallest, int(side) // GRAIN * GRAIN)

    def left(self) -> float:
        """Seconds to the end of the schedule, if a pixel goes on taking as long as it took."""
        pixels = [self.side(epoch) ** 2 for epoch in range(self.cfg.epochs)]
        return self.seconds / sum(pixels[: self.epochs]) * sum(pixels[self.epochs :])

    def epoch(self, advance) -> float:
        """One pass over the images; returns the mean loss.

        The dice depend on seed and epoch only, so a resumed training is the same training.
        """
        dice = torch.Generator().manual_seed(self.cfg.seed * 1_000_003 + self.epochs)
        order = torch.randperm(len(self.images), generator=dice)
        self.module.train()
        started, total, side = time.perf_counter(), 0.0, self.side(self.epochs)
        for step in range(self.steps):
            chosen = order[step * self.cfg.batch : (step + 1) * self.cfg.batch]
            seen = self.images.images[chosen]
            x = self.read(in_memory.augmented(seen, dice, self.images.shift, self.images.mirrored))
            x = in_memory.shrunk(x, side)
            with torch.autocast("cpu", torch.bfloat16, enabled=self.cfg.bfloat16):
                logits = self.module(x)
            loss = nn.functional.cross_entropy(logits.float(), self.images.labels[chosen])
            if not torch.isfinite(loss):
                raise UserError(f"the loss is {loss.item()}: use a smaller lr than {self.cfg.lr}")
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
            self.schedule.step()
            total += loss.item()
            advance(self.cfg.batch)
        self.epochs += 1
        self.seconds += time.perf_counter() - started
        return total / self.steps


@torch.inference_mode()
def correct(module: nn.Module, data: InMemory, read: Callable[[Tensor], Tensor]) -> int:
    """How many images the network names rightly, in float32."""
    module.eval()
    answers = [module(read(part)).argmax(1) for part in data.images.split(250)]
    return int((torch.cat(answers) == data.labels).sum())


def train(cfg: DictConfig) -> dict:
    """Trains to the end of the schedule; returns the model card.

    Raises:
        UserError: the configuration or the data cannot be used.
    """
    validate(cfg)
    torch.set_num_threads(cfg.threads or usable_cores())
    name = network_name(cfg.model)
    directory = Path(cfg.out) / name
    images, test = (load_split(cfg.data, split) for split in ("train", "test"))
    training = Training(cfg, images, directory)
    with claim(directory, "out"):
        return finish(training, name, test)


def finish(training: Training, name: str, test: InMemory) -> dict:
    """Goes on to the end of the schedule, writes weights and model card, and returns the card."""
    cfg, directory, images = training.cfg, training.directory, training.images
    if training.resume():
        say(f"going on after epoch {training.epochs} of {cfg.epochs}: {directory / CHECKPOINT}")
    with bar(f"training {name}", cfg.epochs * training.steps * cfg.batch) as advance:
        advance(training.epochs * training.steps * cfg.batch)
        while training.epochs < cfg.epochs:
            loss = training.epoch(advance)
            training.save()
            say(
                f"{name}: epoch {training.epochs} of {cfg.epochs}, loss {loss:.3f}, "
                f"{training.left() / 60:.0f} min left"
            )
    # The weights ship as float16; what they score is measured with what ships.
    state = {
        key: value.half() if value.is_floating_point() else value
        for key, value in training.module.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    training.module.load_state_dict(state, strict=False)
    right = correct(training.module, test, training.read)
    top1 = 100 * right / len(test)
    size = cfg.model.input
    card = {
        "network": name,
        "function": cfg.model["_target_"],
        "data": {
            "training": f"{images.name}, {len(images)} images",
            "test": f"{test.name}, {len(test)} images; seen once, after the last epoch",
            "mean": list(size.mean),
            "std": list(size.std),
        },
        "top1_percent": top1,
        "interval_95_percent": [100 * end for end in wilson(right, len(test))],
        "epochs": training.epochs,
        "seed": cfg.seed,
        "seconds": round(training.seconds),
        "recipe": training.asked,
        "stored_as": "float16",
        "command": machine.command("bench/train.py"),
        "versions": machine.versions(),
    }
    with replacing(directory / f"{name}.safetensors") as part:
        save_file({k: v.contiguous() for k, v in state.items()}, part)
    write_text(directory / f"{name}.json", json.dumps(card, indent=2) + "\n")
    say(f"{name}: {top1:.2f} % of {len(test)} test images; weights and card: {directory}")
    return card
