"""The file that a command writes, and what it says of the network in it."""

from __future__ import annotations

from pathlib import Path

from fskernel.cli.faults import Usage
from fskernel.cli.terminal import show_facts
from fskernel.network.network import FSNetwork

ENDING = ".safetensors"


def place(output: Path | None, model: str, force: bool) -> Path:
    """Where the network goes.

    Args:
        output: as asked for; None: a file of the model's name, in this folder.

    Raises:
        Usage: there is such a file, or no such folder.
    """
    if output is None:
        name = Path(model).stem if "/" in model else model.rpartition(":")[2]
        for ending in (".onnx", ".pt", ".pth", ".pkl"):
            name = name.removesuffix(ending)
        output = Path(f"{name}{ENDING}")
    if output.suffix != ENDING:
        raise Usage(f"--output {output}: its name must end in {ENDING}")
    if not output.parent.is_dir():
        raise Usage(f"--output {output}: there is no folder {output.parent}")
    if output.exists() and not force:
        raise Usage(f"--output {output} is there already: --force replaces it")
    return output


def report(net: FSNetwork, told: list[tuple[str, str]], where: Path) -> None:
    """What became of the network, a fact a line."""
    show_facts([*told, *facts(net), ("file", f"{where}, {size_of(where)}")])


def facts(net: FSNetwork) -> list[tuple[str, str]]:
    """What one wants to know of a network first."""
    steps = [step for step in net.steps if step.spiking]
    some = {step.code.K for step in steps}
    K = f"{net.K}" if len(some) == 1 else f"{min(some, default=0)} to {net.K}, by layer"
    alphas = [alpha for step in steps if (alpha := step.info.get("alpha")) is not None]
    bits = {b for step in net.steps if (b := getattr(step, "info", {}).get("weight_bits"))}
    found = [("time steps K", K)]
    if alphas:
        low, high = f"{min(alphas):.4g}", f"{max(alphas):.4g}"
        found.append(("alpha", low if low == high else f"{low} to {high}, by layer"))
    kinds = "".join(f"int{b}, " for b in sorted(bits))
    found.append(("weights", f"{kinds}{net.weight_bytes:,} bytes"))
    neurons = "" if net.input_size is None else f", {net.neurons:,} neurons"
    found.append(("layers", f"{len(steps)} of neurons{neurons}, and the readout"))
    found.append(("latency", f"{net.latency_steps:,} time steps, an image every "
                             f"{net.interval_steps} in a pipeline"))  # fmt: skip
    found.append(("images", _images(net)))
    return found


def _images(net: FSNetwork) -> str:
    how = net.preprocessing
    if how is None:
        return "how they are made ready is not known"
    rows, columns = how.size
    classes = "" if how.labels is None else f", {len(how.labels)} named classes"
    return f"{how.channels} channel(s) of {rows}x{columns}{classes}"


def size_of(path: Path) -> str:
    """A file's size in words."""
    size = path.stat().st_size
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"
