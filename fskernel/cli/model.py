"""The trained network that a command is told of: whose it is, its weights, its preprocessing."""

from __future__ import annotations

import difflib
import importlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from traceback import extract_tb

import torch
from torch import nn

from fskernel import models
from fskernel.cli.faults import Failure, Usage
from fskernel.models import shipped
from fskernel.onnx_files.network import from_onnx
from fskernel.preprocessing import INTERPOLATIONS, Preprocessing

PICKLES = (".pt", ".pth", ".pkl")
STATES = (".safetensors", *PICKLES)


@dataclass
class Found:
    """A network in eval mode.

    Attributes:
        told: what it is and where its weights are from, in words.
        published: how its images are made ready, and its classes where its weights are the
            published ones; None: unknown.
    """

    module: nn.Module
    told: str
    published: Preprocessing | None = None


@dataclass
class Wish:
    """What a command was told of a network: see --help of `fskernel convert`."""

    model: str
    weights: str = "default"
    classes: int | None = None
    trust: bool = False
    seed: int = 0

    @property
    def file(self) -> Path | None:
        """The file of weights, if it is one."""
        path = Path(self.weights)
        return path if path.suffix in STATES or path.is_file() else None

    @property
    def size(self) -> dict[str, int]:
        """The argument that says how many classes are built."""
        return {} if self.classes is None else {"num_classes": self.classes}

    def refuse_name(self, whose: str, names: str) -> None:
        """Refuses weights by name, but "default" and "random".

        Args:
            whose: the network. names: which weights it has.
        """
        if self.file is None and self.weights not in ("default", "random"):
            raise Usage(
                f"--weights {self.weights}: {whose} has {names}, and takes a file "
                f"({', '.join(STATES)})"
            )


def find(wish: Wish) -> Found:
    """The network that was asked for.

    Raises:
        Usage: there is none of that name; those that are near it are named.
        Failure: its package is not installed, its weights cannot be fetched, or it cannot be built.
    """
    torch.manual_seed(wish.seed)
    source, name = resolve(wish.model)
    found = SOURCES[source](name, wish)
    if not isinstance(found.module, nn.Module):
        raise Failure(
            f"{wish.model} is a {type(found.module).__name__}: it must be a torch.nn.Module, or a "
            "function that returns one"
        )
    if wish.file is not None:
        _load(found.module, wish.file)
        found.told += f" with the weights of {wish.file}"
    found.module.eval()
    return found


def resolve(model: str) -> tuple[str, str]:
    """Whose a name is, a key of SOURCES, and the name there.

    Without a prefix: a file, else the first of fskernel, Python's packages, torchvision and timm
    that has it.
    """
    source, colon, name = model.partition(":")
    if colon and source in SOURCES:
        return source, name
    path = Path(model)
    if path.suffix in (*STATES, ".onnx", ".pt2") or path.is_file():
        return "file", model
    if model in shipped.names():
        return "fskernel", model
    if "." in model and _importable(model.partition(".")[0]):  # no name of torchvision has a point
        return "python", model
    if model in _torchvision_names():
        return "torchvision", model
    timm = _optional("timm")
    if timm is not None and timm.is_model(model):
        return "timm", model
    known = [*shipped.names(), *_torchvision_names(), *(timm.list_models() if timm else [])]
    near = list(dict.fromkeys(difflib.get_close_matches(model, known, 5)))
    absent = [name for name in ("torchvision", "timm") if find_spec(name) is None]
    raise Usage(
        f"MODEL {model!r} is no network of fskernel, torchvision or timm, no package.function that "
        "can be imported and no file"
        + (f"; did you mean {', '.join(near)}?" if near else "")
        + (f"; not installed: {', '.join(absent)}" if absent else "")
    )


def _fskernels(name: str, wish: Wish) -> Found:
    _known(name, shipped.names(), "fskernel")
    make = getattr(models, name)
    on = shipped.trained_on(name)
    if wish.weights == on:
        wish.weights = "default"
    wish.refuse_name(name, on)
    published = models.preprocessing(name)
    if wish.weights == "default":
        if wish.classes not in (None, len(published.labels or ())):
            raise Usage(
                f"--classes {wish.classes}: the weights that come with fskernel are for "
                f"{len(published.labels or ())} classes; give --weights FILE or --weights random"
            )
        return Found(make(weights=on), f"fskernel's {name}, trained on {on}", published)
    return _unlabelled(make(**wish.size), f"fskernel's {name}", published, wish)


def _torchvisions(name: str, wish: Wish) -> Found:
    torchvision = _required("torchvision")
    from torchvision.models import get_model, get_model_weights

    names = _torchvision_names()
    _known(name, names, "torchvision")
    there = get_model_weights(name)
    chosen = there.DEFAULT if hasattr(there, "DEFAULT") else None
    if wish.file is None and wish.weights not in ("default", "random"):
        if wish.weights not in there.__members__:
            wish.refuse_name(f"torchvision's {name}", ", ".join(w.name for w in there))
        chosen = there[wish.weights]
    told = f"torchvision's {name}"
    published = None if chosen is None else _of_transforms(chosen)
    if wish.weights == "random" or wish.file is not None:
        return _unlabelled(get_model(name, **wish.size), told, published, wish)
    if chosen is None:
        raise Usage(f"{told} has no pretrained weights: say --weights FILE or --weights random")
    _no_classes(wish)
    cache = f"{torch.hub.get_dir()}/checkpoints"
    with _fetching(told, f"put {chosen.url} into {cache}"):
        module = get_model(name, weights=chosen)
    return Found(
        module, f"{told}, weights {chosen.name} (torchvision {torchvision.__version__})", published
    )


def _of_transforms(weights) -> Preprocessing | None:
    """What torchvision publishes with weights; None: in a way that is not known here."""
    how = weights.transforms()
    try:
        (size,), (resize,) = how.crop_size, how.resize_size
        mode = how.interpolation.value
        labels = weights.meta.get("categories")
        return Preprocessing((size, size), resize, how.mean, how.std, mode, labels)
    except (AttributeError, ValueError, TypeError):
        return None


def _timms(name: str, wish: Wish) -> Found:
    timm = _required("timm")
    if not timm.is_model(name):
        _known(name, timm.list_models(), "timm")
    told = f"timm's {name}"
    wish.refuse_name(told, "its weights in its name (timm:resnet50.a1_in1k)")
    wants = wish.weights == "default"
    if wants:
        _no_classes(wish)
    with _fetching(told, "fill the cache of huggingface_hub where there is a network"):
        module = timm.create_model(name, pretrained=wants, **wish.size)
    published = _of_data_config(timm, module)
    if not wants:
        return _unlabelled(module, told, published, wish)
    tag = module.pretrained_cfg.get("tag")
    return Found(
        module, f"{told}{f', weights {tag}' if tag else ''} (timm {timm.__version__})", published
    )


def _of_data_config(timm, module: nn.Module) -> Preprocessing | None:
    """What timm publishes with a network; None: in a way that is not known here."""
    how = timm.data.resolve_model_data_config(module)
    rows, columns = how["input_size"][1:]
    resize = tuple(math.floor(side / how["crop_pct"]) for side in (rows, columns))
    centre = how["crop_mode"] == "center" and rows == columns
    if not (centre or how["crop_mode"] == "squash") or how["interpolation"] not in INTERPOLATIONS:
        return None
    subset = timm.data.infer_imagenet_subset(module)
    info = timm.data.ImageNetInfo(subset) if subset else None
    labels = None
    if info is not None and info.num_classes() == module.num_classes:
        labels = tuple(info.index_to_description(i) for i in range(info.num_classes()))
    return Preprocessing(
        (rows, columns),
        resize[0] if centre else resize,
        tuple(map(float, how["mean"])),
        tuple(map(float, how["std"])),
        how["interpolation"],
        labels,
    )


def _pythons(target: str, wish: Wish) -> Found:
    wish.refuse_name(target, "the weights that it comes with (default)")
    if wish.weights == "random":
        raise Usage(f"--weights random: {target} is built as it is; leave --weights out")
    try:
        made = _object(target)
        if not isinstance(made, nn.Module):
            made = made(**wish.size)
        elif wish.size:
            raise Usage(f"--classes: {target} is a module that is built already")
    except Usage:
        raise
    except Exception as error:  # it is the user's own code
        *_, last = extract_tb(error.__traceback__)
        place = "" if last.filename == __file__ else f" ({last.filename}, line {last.lineno})"
        raise Failure(f"{target} raised {type(error).__name__}: {error}{place}") from error
    return Found(made, target)


def _object(target: str) -> Callable[..., nn.Module] | nn.Module:
    """What package.module.name names."""
    parts = target.split(".")
    for n in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:n])
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError as error:
            # A package that the user's module lacks is another matter.
            if n > 1 and error.name and module.startswith(error.name):
                continue
            raise
        for part in parts[n:]:
            if not hasattr(found, part):
                near = difflib.get_close_matches(part, dir(found), 3)
                hint = f"; did you mean {', '.join(near)}?" if near else ""
                raise Usage(f"{target}: {module} has no {part}{hint}")
            found = getattr(found, part)
        return found
    raise Usage(f"{target!r} is no package.function")


def _files(name: str, wish: Wish) -> Found:
    path = Path(name)
    if not path.is_file():
        raise Usage(f"{path}: there is no such file")
    if path.suffix == ".safetensors":
        raise Usage(
            f"{path} holds tensors, not a network: if they are weights, name theirs, as in "
            f"fskernel convert resnet18 --weights {path}; a network that fskernel convert wrote is "
            f"shown by fskernel info {path}"
        )
    if path.suffix == ".pt2":
        raise Usage(
            f"{path} is an exported program, whose modules are gone: name the function that builds "
            "the network, package.function, and give its state dict with --weights FILE"
        )
    if path.suffix not in (".onnx", *PICKLES):
        raise Usage(
            f"{path} is no network: a pickled module is called {', '.join(PICKLES)}, and an ONNX "
            "file .onnx"
        )
    if wish.weights != "default" or wish.classes is not None:
        raise Usage(f"{path} has its weights and classes: leave --weights and --classes out")
    if path.suffix == ".onnx":
        if not _importable("onnx"):
            raise Failure(f"{path}: onnx is not installed: pip install onnx")
        return Found(from_onnx(path), f"the ONNX file {path}")
    try:
        made = torch.load(path, map_location="cpu", weights_only=True)
        raise Usage(
            f"{path} is a {type(made).__name__}, not a module: if it is a state dict, name its "
            f"network, as in fskernel convert resnet18 --weights {path}"
        )
    except Usage:
        raise
    except Exception as error:  # many types: it may be a module, or no file of torch's at all
        if not wish.trust:
            raise Usage(
                f"{path} is no plain state dict, and loading a pickled module runs code that is in "
                "the file: add --trust if you know its author"
            ) from error
    try:
        made = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # whatever its code raises
        raise Failure(f"{path} cannot be loaded: {type(error).__name__}: {error}") from error
    return Found(made, f"the module in {path}")


SOURCES: dict[str, Callable[[str, Wish], Found]] = {
    "fskernel": _fskernels,
    "torchvision": _torchvisions,
    "timm": _timms,
    "python": _pythons,
    "file": _files,
}


def _unlabelled(module: nn.Module, told: str, published: Preprocessing | None, wish: Wish) -> Found:
    """A network whose weights are not the published ones: nor are its classes."""
    if wish.file is None:
        told += ", random weights: what it answers means nothing"
    if published is not None:
        published = Preprocessing(**{**vars(published), "labels": None})
    return Found(module, told, published)


def _no_classes(wish: Wish) -> None:
    if wish.classes is not None:
        raise Usage(
            f"--classes {wish.classes}: the pretrained weights have classes of their own; give "
            "--weights FILE or --weights random"
        )


@contextmanager
def _fetching(told: str, cure: str) -> Iterator[None]:
    """Around what may fetch weights of a network: says that it failed, and what would help."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        first = str(error).strip().partition("\n")[0]
        raise Failure(
            f"the weights of {told} cannot be fetched ({first}): connect this machine, {cure}, "
            "give a file with --weights FILE, or go on with --weights random"
        ) from error


def _load(module: nn.Module, path: Path) -> None:
    """Loads a state dict; it is data, no code in it is run."""
    if not path.is_file():
        raise Usage(f"--weights {path}: there is no such file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises many types
        first = str(error).strip().partition("\n")[0]
        raise Failure(f"--weights {path} cannot be read as a state dict: {first}") from error
    for key in ("state_dict", "model"):  # as trainers wrap it
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    try:
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
        module.load_state_dict(state)
    except (RuntimeError, AttributeError, TypeError) as error:
        first = " ".join(str(error).split())[:300]
        raise Usage(f"--weights {path} does not fit the network: {first}") from error


def _known(name: str, names: list[str], whose: str) -> None:
    if name not in names:
        near = ", ".join(difflib.get_close_matches(name, names, 5)) or ", ".join(names[:5])
        raise Usage(f"MODEL {whose}:{name}: {whose} has no such network; near it are {near}")


def _torchvision_names() -> list[str]:
    torchvision = _optional("torchvision")
    return torchvision.models.list_models(module=torchvision.models) if torchvision else []


def _optional(package: str):
    """The package, or None where it is not installed."""
    if not _importable(package):
        return None
    return importlib.import_module(package)


def _required(package: str):
    found = _optional(package)
    if found is None:
        raise Failure(f"MODEL {package}:...: {package} is not installed: pip install {package}")
    return found


def _importable(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):
        return False
