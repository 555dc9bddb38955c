"""`fskernel run`: what a network says of images, and the spikes that took."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from fskernel.cli import images as files
from fskernel.cli import preparing as how
from fskernel.cli.faults import Failure, Usage, in_one_sentence, of_arguments
from fskernel.cli.info import opened
from fskernel.cli.terminal import show, show_json, show_table, watched
from fskernel.network.network import FSNetwork
from fskernel.progress import progress_bar


@dataclass
class Answer:
    """What the network says of one image.

    Attributes:
        top: classes and their probabilities (softmax of the logits), the largest first.
        spikes: that the image took. truth: its class, or None.
    """

    path: Path
    top: list[tuple[int, float]]
    spikes: int
    truth: int | None


@in_one_sentence
def run(
    file: Path,
    images: Sequence[Path],
    top: int,
    count: int | None,
    labelled: bool,
    batch: int,
    threads: int | None,
    device: str,
    form: str,
    preparing: dict,
) -> None:
    """Shows images to the network in a file.

    Args:
        top: classes named of each image. count: images taken, or None for all.
        labelled: an image's folder is its class. batch: images at once.
        threads: of torch, or None. device: that computes. form: "table", "csv" or "json".
        preparing: as of `how.settled`.

    Raises:
        SystemExit: with 1, where an image cannot be read; with what `in_one_sentence` says.
    """
    paths = files.find(images)
    net = opened(file)
    prepared = how.settled(net.preprocessing, preparing, str(file))
    with of_arguments():
        net.preprocessing = prepared
    if threads is not None:
        torch.set_num_threads(threads)
    _move(net, device)
    with of_arguments():
        net.check_logits("fskernel run")
    classes = net.classes
    truth = files.classes_of(paths, prepared.labels, classes) if labelled else None
    chosen = files.evenly(count, len(paths))
    paths, truth = [paths[i] for i in chosen], truth and [truth[i] for i in chosen]
    reader = files.Reader(prepared)
    answers: list[Answer] = []
    with progress_bar("showing images", len(paths), watched()) as advance:
        for at, x in reader.batches(paths, batch, advance):
            with of_arguments():
                logits, spikes = net.count_spikes(x.to(net.device))
            found = logits.double().softmax(1).topk(min(top, classes))
            total = sum(spikes.values(), torch.zeros(len(x), dtype=torch.int64, device=net.device))
            rows = zip(at, found.indices.tolist(), found.values.tolist(), total.tolist())
            for i, numbers, shares, n in rows:
                named = list(zip(numbers, shares))
                answers.append(Answer(paths[i], named, n, truth[i] if truth else None))
    if not answers:
        raise Failure(f"none of the {len(paths)} images can be read")
    FORMS[form](file, net, answers, reader.unreadable)
    if reader.unreadable:
        raise Failure(f"{len(reader.unreadable)} of {len(paths)} images cannot be read")


def _move(net: FSNetwork, device: str) -> None:
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise Usage(f"--device {device} is unknown: use cpu, cuda or cuda:1") from error
    if wanted.type not in ("cpu", "cuda"):
        raise Usage(f"--device {device}: fskernel computes on cpu and cuda")
    if wanted.type == "cuda" and not torch.cuda.is_available():
        raise Failure(f"--device {device}: torch sees no GPU here")
    try:
        net.to(wanted)
    except (RuntimeError, ValueError) as error:
        raise Failure(f"--device {device}: {str(error).partition(chr(10))[0]}") from error


def label(net: FSNetwork, number: int) -> str:
    """What a class is called: its number, where it has no name."""
    named = net.preprocessing and net.preprocessing.labels
    return named[number] if named else str(number)


def _totals(answers: list[Answer]) -> dict:
    n = len(answers)
    known = [answer for answer in answers if answer.truth is not None]
    right = sum(answer.top[0][0] == answer.truth for answer in known)
    return {
        "images": n,
        "spikes_per_image": sum(answer.spikes for answer in answers) / n,
        "top1": right / len(known) if known else None,
    }


def _table(file: Path, net: FSNetwork, answers: list[Answer], unreadable: dict) -> None:
    head = ["image", "spikes", "class", "probability"]
    rows = []
    for answer in answers:
        for i, (number, share) in enumerate(answer.top):
            first = [str(answer.path), f"{answer.spikes:,}"] if i == 0 else ["", ""]
            rows.append([*first, label(net, number), f"{100 * share:.1f} %"])
    show_table(head, rows, right=("spikes", "probability"))
    total = _totals(answers)
    text = f"{total['images']:,} image(s), {total['spikes_per_image']:,.0f} spikes each on average"
    if total["top1"] is not None:
        text += f", {100 * total['top1']:.1f} % of them right (top-1)"
    show(text)


def _csv(file: Path, net: FSNetwork, answers: list[Answer], unreadable: dict) -> None:
    most = len(answers[0].top)
    ranks = [f"{name}{i}" for i in range(1, most + 1) for name in ("class", "label", "probability")]
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(["file", "spikes", "truth", *ranks])
    for answer in answers:
        truth = "" if answer.truth is None else answer.truth
        named = [
            cell for number, share in answer.top for cell in (number, label(net, number), share)
        ]
        out.writerow([answer.path, answer.spikes, truth, *named])
    sys.stdout.flush()


def _json(file: Path, net: FSNetwork, answers: list[Answer], unreadable: dict) -> None:
    def of(answer: Answer) -> dict:
        named = [
            {"class": number, "label": label(net, number), "probability": share}
            for number, share in answer.top
        ]
        found = {"file": str(answer.path), "spikes": answer.spikes, "top": named}
        return found if answer.truth is None else found | {"truth": answer.truth}

    show_json(
        {
            "network": str(file),
            "images": [of(answer) for answer in answers],
            "totals": _totals(answers),
            "unreadable": [{"file": str(p), "reason": why} for p, why in unreadable.items()],
        }
    )


FORMS = {"table": _table, "csv": _csv, "json": _json}
