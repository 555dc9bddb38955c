"""`fskernel fidelity`: how close a conversion is to the paper's own network."""

from __future__ import annotations

from pathlib import Path

import torch

from fskernel.analysis.fidelity import fidelity as measured
from fskernel.cli import images as files
from fskernel.cli.convert import converted
from fskernel.cli.faults import in_one_sentence, of_arguments
from fskernel.cli.terminal import say, show_facts, show_json


@in_one_sentence
def fidelity(
    network: dict,
    images: Path,
    count: int,
    on: Path | None,
    on_count: int,
    preparing: dict,
    options: dict,
    as_json: bool,
    threads: int | None,
) -> None:
    """Converts, compares and prints.

    Args:
        network, images, count, preparing, options, threads: as of `convert`.
        on: images to compare on; None: those of `images`. on_count: how many.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    there = files.find([on or images])
    net, told = converted(network, images, count, preparing, options)
    chosen = [there[i] for i in files.evenly(on_count, len(there))]
    batches, n = files.gathered(chosen, net.preprocessing)
    say(f"computing the paper's network in float64 on {n} image(s)")
    with of_arguments():
        found = measured(net, torch.cat([x for _, x in batches]))
    if as_json:
        show_json({"network": dict(told)["network"], "K": net.K, "images": n, **found})
        return
    show_facts(
        [
            *told,
            ("compared on", f"{n} of {len(there)} images of {on or images}"),
            ("time steps K", str(net.K)),
            ("same answer", f"{100 * found['agreement']:.1f} % of the images"),
            ("logit error", f"{found['logit_error']:.4g} of the logits' norm"),
            ("words changed", f"{100 * found['words_changed']:.3g} % of the spike words"),
            ("spikes ratio", f"{found['spikes_ratio']:.4f} of the paper's network"),
            ("effective bits", f"{found['effective_bits']:.1f} in the worst output channel"),
        ]
    )
