"""`fskernel convert`: from a trained network to a file."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from fskernel.cli import images as files
from fskernel.cli import model
from fskernel.cli import preparing as how
from fskernel.cli.faults import Usage, in_one_sentence, of_arguments
from fskernel.cli.output import place, report
from fskernel.cli.terminal import say, watched
from fskernel.conversion.convert import convert as conversion
from fskernel.network.network import FSNetwork
from fskernel.preprocessing import Preprocessing


@in_one_sentence
def convert(
    network: dict,
    images: Path | None,
    count: int,
    preparing: dict,
    options: dict,
    output: Path | None,
    force: bool,
    threads: int | None,
) -> None:
    """Converts, saves and reports.

    Args:
        network: as `model.Wish`. images: what calibrates. count: how many of them.
        preparing: as of `how.settled`. options: of `fskernel.convert`.
        output: the file, or None. force: replace it. threads: of torch, or None for its own number.
    """
    where = place(output, network["model"], force)
    if threads is not None:
        torch.set_num_threads(threads)
    net, told = converted(network, images, count, preparing, options)
    net.save(where)
    report(net, told, where)


def converted(
    network: dict, images: Path | None, count: int, asked: dict, options: dict
) -> tuple[FSNetwork, list[tuple[str, str]]]:
    """The converted network with its preprocessing, and what it was made of, in words.

    Raises:
        Usage, Failure, ConversionError: what was typed, or what cannot be done.
    """
    if images is None and not _needs_no_images(options):
        raise Usage(
            "--images DIR is missing: images set the range of every layer; without any, give the "
            "range, --alpha 4, or --neuron paper"
        )
    paths = [] if images is None else files.find([images])  # refused before a network is fetched
    found = model.find(model.Wish(**network))
    say(f"converting {found.told}")
    prepared = None
    if images is not None or found.published is not None or not how.untouched(asked):
        prepared = how.settled(found.published, asked, network["model"])
    told = [("network", found.told)]
    calibration, size = None, None
    if images is not None:
        chosen = [paths[i] for i in files.evenly(count, len(paths))]
        batches, n = files.gathered(chosen, prepared)
        calibration = [x for _, x in batches]
        prepared = fitting(prepared, found.module, calibration[0], asked)
        told.append(("calibrated on", f"{n} of {len(paths)} images of {images}"))
    elif prepared is not None:
        size = (1, prepared.channels, *prepared.size)
    with of_arguments():
        net = conversion(found.module, calibration, input_size=size, progress=watched(), **options)
        net.preprocessing = prepared
    return net, told


def fitting(
    prepared: Preprocessing, module: nn.Module, x: torch.Tensor, asked: dict
) -> Preprocessing:
    """The preprocessing without published labels that are not as many as the network's logits.

    Raises:
        Usage: labels that were asked for are not as many.
    """
    if prepared.labels is None:
        return prepared
    try:
        with torch.no_grad():
            logits = module(x[:1])
        classes = logits.shape[1]
    except Exception:  # of the user's own network: the conversion says what is wrong
        return prepared
    if len(prepared.labels) == classes:
        return prepared
    if asked["labels"] is not None:
        raise Usage(
            f"--labels {asked['labels']} has {len(prepared.labels)} lines: the network has "
            f"{classes} classes"
        )
    return Preprocessing(**{**vars(prepared), "labels": None})


def _needs_no_images(options: dict) -> bool:
    measured = not isinstance(options.get("alpha", "max"), float)
    return not measured or (options.get("neuron") == "paper" and "alpha" not in options)
