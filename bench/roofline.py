"""What a GPU could and should do on ResNet50: the roofline, and the tile model of our kernels.

    python bench/roofline.py --batch 128 --gpu h100 --out outputs/roofline

The roofline moves every tensor once and computes at the peak: a bound, not an expectation. The tile
model takes the machine code of the built kernels (instructions a k-step), the bytes that a tile
moves from the L2 cache, whole waves of blocks, and the making of byte maps. Nothing in it was
measured on a GPU; what is assumed is in GPUS and below it. docs/gpu-model.md has the tables.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.output import interrupt

if __name__ == "__main__":
    interrupt.leave_at_once()  # there is nothing to keep yet

from bench.gpu_model.gpus import GPUS
from bench.gpu_model.tiles import tiles
from bench.output.faults import in_one_sentence
from bench.output.folders import ready


@in_one_sentence("--out")
def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--K", type=int, nargs="+", default=[8, 10])
    parser.add_argument("--gpu", choices=GPUS, default="h100")
    parser.add_argument("--out", type=Path, default=Path("outputs/roofline"))
    args = parser.parse_args(arguments)
    ready(args.out, "--out")
    with interrupt.importing():
        from bench.gpu_model.tables import markdown, table, tile_table
        from fskernel.files import write_text
        from fskernel.kernels import ops
    gpu = GPUS[args.gpu]
    try:
        built = tiles(Path(ops.compiled().__file__), gpu.arch)
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    found = [table(K, args.batch, gpu, built) for K in args.K]
    text = "\n\n".join([tile_table(built, gpu), *map(markdown, found)]) + "\n"
    write_text(args.out / "roofline.md", text)
    kept = {"tiles": [asdict(t) for t in built], "tables": found}
    write_text(args.out / "roofline.json", json.dumps(kept, indent=1) + "\n")
    print(text)
    print(f"written: {args.out}/roofline.md, roofline.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
