"""ResNet50 by the GPU model, as tables."""

from __future__ import annotations

from dataclasses import asdict

import torch

import fskernel as fs
from bench.gpu_model.gpus import Gpu
from bench.gpu_model.model import layers, predict, roofline, step_clocks, traffic
from bench.gpu_model.tiles import Tile
from bench.measures.shapes import ConvShape, convolutions
from bench.output.markdown import table as table_of


def resnet50(K: int) -> list[ConvShape]:
    """The layers of fskernel's own ResNet50, at 224 x 224; the weights do not matter."""
    from torchvision.models import resnet50 as build

    torch.manual_seed(0)
    net = fs.convert(build().eval(), alpha=6.0, K=K)
    return convolutions(net, 224, 224)


def table(K: int, batch: int, gpu: Gpu, built: list[Tile]) -> dict[str, object]:
    """All layers of ResNet50 and their sums."""
    rows = []
    for layer in layers(resnet50(K)):
        bound, model = roofline(layer, batch, gpu), predict(layer, batch, built, gpu)
        macs = batch * sum(g.macs for g in layer.groups)
        ours = max(bound["compute"], bound["memory"])
        seconds = model["seconds"]
        rows.append(
            {
                "layer": layer.title(),
                "calls": layer.calls,
                "gmacs": macs / 1e9,
                "megabytes": traffic(layer, batch) / 1e6,
                "roofline_us": ours * 1e6,
                "bound": "compute" if bound["compute"] > bound["memory"] else "memory",
                "fp16_roofline_us": bound["fp16"] * 1e6,
                "packed_roofline_us": bound["packed"] * 1e6,
                "kernel": model["kernel"],
                "model_us": None if seconds is None else seconds * 1e6,
                "of_it_maps_us": model["maps"] * 1e6,
                "limit": model["limit"],
                "share_of_int8_peak": None if not seconds else macs / seconds / gpu.int8_peak,
            }
        )
    modelled = [r for r in rows if r["model_us"] is not None]

    def total(key: str, some: list[dict]) -> float:
        return sum(r["calls"] * r[key] for r in some)

    return {
        "K": K,
        "batch": batch,
        "gpu": asdict(gpu),
        "rows": rows,
        "roofline_us": total("roofline_us", rows),
        "fp16_roofline_us": total("fp16_roofline_us", rows),
        "packed_roofline_us": total("packed_roofline_us", rows),
        "model_us": total("model_us", modelled),
        "fp16_roofline_of_modelled_us": total("fp16_roofline_us", modelled),
        "not_modelled": [r["layer"] for r in rows if r["model_us"] is None],
    }


def markdown(found: dict[str, object]) -> str:
    """The table as Markdown."""
    head = ("layer", "calls", "GMAC", "MB", "roofline", "fp16 roofline", "kernel", "tile model")
    rows = []
    for r in found["rows"]:
        rows.append(
            (
                r["layer"],
                r["calls"],
                f"{r['gmacs']:.1f}",
                f"{r['megabytes']:.0f}",
                f"{r['roofline_us']:.1f} {r['bound']}",
                f"{r['fp16_roofline_us']:.1f}",
                r["kernel"],
                "-" if r["model_us"] is None else f"{r['model_us']:.1f}",
                f"{r['of_it_maps_us']:.1f}",
                r["limit"],
                "-" if r["share_of_int8_peak"] is None else f"{r['share_of_int8_peak']:.0%}",
            )
        )
    lines = [
        f"K={found['K']}, batch {found['batch']}, {found['gpu']['name']}; microseconds per call",
        "",
        *table_of((*head, "of it maps", "limit", "of int8 peak"), rows),
    ]
    batch, ratio = found["batch"], found["fp16_roofline_us"] / found["roofline_us"]
    against = found["fp16_roofline_of_modelled_us"] / found["model_us"]
    missing = ", ".join(found["not_modelled"])
    lines += [
        "",
        f"All convolutions, per image: by the roofline FS needs {found['roofline_us'] / batch:.2f} "
        f"us and is {ratio:.2f} times as fast as fp16 "
        f"({found['fp16_roofline_us'] / batch:.2f} us). "
        f"By the tile model{f', without {missing},' if missing else ''} it needs "
        f"{found['model_us'] / batch:.2f} us and is {against:.2f} times as fast as the roofline of "
        "fp16 for the same layers.",
    ]
    if found["K"] > 8:
        packed = found["packed_roofline_us"]
        ratio = found["fp16_roofline_us"] / packed
        lines[-1] += (
            f" With words packed into {found['K']} bits, which no kernel here reads, it would need "
            f"{packed / batch:.2f} us by the roofline and be {ratio:.2f} times as fast as fp16."
        )
    return "\n".join(lines)


def tile_table(built: list[Tile], gpu: Gpu) -> str:
    """Machine-code counts and clocks of every tile, as Markdown."""
    counts = ("IMMA", "LDSM", "LDGSTS", "other", "issue slots per IMMA", "MAC per L2 byte")
    shares = ("tensor", "issue", "shared memory", "L2", "of int8 peak", "instructions in all")
    rows = []
    for t in built:
        ideal = t.pixels * t.channels * 64 / gpu.int8_macs
        clocks = [v / ideal for v in step_clocks(t, gpu).values()]
        rows.append(
            (
                t.name,
                f"{t.blocks}x{t.warps}",
                *(t.imma, t.ldsm, t.ldgsts, t.other),
                f"{t.issued / t.imma:.2f}",
                f"{t.macs_per_byte:.1f}",
                *(f"{v:.2f}" for v in clocks),
                f"{1 / max(clocks):.0%}",
                f"{t.code:,}",
            )
        )
    title = (
        f"Main loop of every kernel, a warp's instructions in a k-step (64 bytes of synapses), "
        f"sm_{gpu.arch}; clocks of a block's k-step over those of the int8 peak, {gpu.name}"
    )
    return "\n".join([title, "", *table_of(("kernel", "blocks x warps", *counts, *shares), rows)])
