"""`fskernel info`: what a network's file holds, or what this fskernel is."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch

from fskernel.cli.faults import Failure, Usage, in_one_sentence
from fskernel.cli.output import facts, size_of
from fskernel.cli.terminal import show, show_facts, show_json
from fskernel.kernels.device import cuda_fault
from fskernel.kernels.info import build_info
from fskernel.network.network import FSNetwork
from fskernel.network.stored.load import load


@in_one_sentence
def info(file: Path | None, as_json: bool) -> None:
    """Prints the facts of a file, or without one those of the build."""
    if file is None:
        built = build_info()
        built["GPU"] = _gpu()
        if as_json:
            show_json(built)
        else:
            show(str(built))
        return
    net = opened(file)
    if as_json:
        show_json(_document(net, file))
        return
    show_facts([("file", f"{file}, {size_of(file)}"), *facts(net), *_search(net)])
    show(f"\n{net.report()}")


def _gpu() -> str:
    """The GPU that is used, or in one sentence why none is."""
    try:
        fault = cuda_fault()
    except RuntimeError:  # the library is missing, as another line says
        return "unknown"
    return torch.cuda.get_device_name() if fault is None else f"none, the CPU does all: {fault}"


def opened(file: Path) -> FSNetwork:
    """The network in a file.

    Raises:
        Usage: there is no such file.
        Failure: it is damaged, or no network of fskernel's.
    """
    if not file.is_file():
        raise Usage(f"FILE {file}: there is no such file")
    try:
        return load(file)
    except ValueError as error:
        raise Failure(str(error)) from error


def _search(net: FSNetwork) -> list[tuple[str, str]]:
    """By which search its K was found, as far as the file says so in the usual way."""
    found = net.search or {}
    criterion, budget = found.get("criterion"), found.get("budget")
    if not (isinstance(criterion, str) and isinstance(budget, float)):
        return []
    return [("K found by", f"a search that kept {criterion} within {budget:g}")]


def _document(net: FSNetwork, file: Path) -> dict:
    return {
        "file": str(file),
        "bytes": file.stat().st_size,
        "K": net.K,
        "depth": net.depth,
        "latency_steps": net.latency_steps,
        "interval_steps": net.interval_steps,
        "weight_bytes": net.weight_bytes,
        "neurons": None if net.input_size is None else net.neurons,
        "classes": net.classes,
        "channels": net.in_channels,
        "input_size": net.input_size,
        "fixed_size": net.fixed_size,
        "preprocessing": None if net.preprocessing is None else net.preprocessing.spec(),
        "search": net.search,
        "layers": [asdict(row) for row in net.report().rows],
    }
