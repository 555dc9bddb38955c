"""`fskernel search`: the smallest K, and the network that has it."""

from __future__ import annotations

from pathlib import Path

import torch

from fskernel.cli import images as files
from fskernel.cli import model
from fskernel.cli import preparing as how
from fskernel.cli.convert import fitting
from fskernel.cli.faults import Interrupted, Usage, in_one_sentence, of_arguments
from fskernel.cli.output import place, report
from fskernel.cli.terminal import say, show, watched
from fskernel.k_search.search import search as searched


@in_one_sentence
def search(
    network: dict,
    images: Path,
    count: int,
    labelled: bool,
    preparing: dict,
    options: dict,
    budget: float,
    criterion: str,
    K_range: tuple[int, int],
    per_layer: bool,
    max_evaluations: int,
    ledger: Path | None,
    timing: bool,
    output: Path | None,
    force: bool,
    threads: int | None,
) -> None:
    """Searches, saves the network and prints what was tried.

    Args:
        network, images, count, preparing, output, force, threads: as of `convert`.
        labelled: an image's folder is its class.
        options: of `fskernel.convert`.
        ledger: the folder where measurements are kept; None: beside the output.
        budget, criterion, K_range, per_layer, max_evaluations, timing: as of `fskernel.search`.
    """
    where = place(output, network["model"], force)
    kept = where.with_suffix(".search") if ledger is None else ledger
    if criterion == "top1" and not labelled:
        raise Usage("--criterion top1 needs --labelled, and images in a folder for each class")
    if threads is not None:
        torch.set_num_threads(threads)
    paths = files.find([images])
    found = model.find(model.Wish(**network))
    say(f"searching the K of {found.told}; measurements are kept in {kept}")
    prepared = how.settled(found.published, preparing, network["model"])
    chosen = files.evenly(count, len(paths))
    batches, n = files.gathered([paths[i] for i in chosen], prepared)
    prepared = fitting(prepared, found.module, batches[0][1], preparing)
    calibration: list = [x for _, x in batches]
    if labelled:
        with torch.no_grad():
            classes = found.module(calibration[0][:1]).shape[1]
        truth = files.classes_of(paths, prepared.labels, classes)
        calibration = [(x, torch.tensor([truth[chosen[i]] for i in at])) for at, x in batches]
    try:
        with of_arguments():
            result = searched(
                found.module,
                calibration,
                budget,
                criterion=criterion,
                K_range=K_range,
                per_layer=per_layer,
                max_evaluations=max_evaluations,
                folder=kept,
                timing=timing,
                progress=watched(),
                **options,
            )
            result.net.preprocessing = prepared
    except KeyboardInterrupt as error:
        raise Interrupted(f"the same command goes on from {kept}") from error
    result.net.save(where)
    show(result.table() + "\n")
    told = [("network", found.told), ("searched on", f"{n} of {len(paths)} images of {images}")]
    report(result.net, told, where)
