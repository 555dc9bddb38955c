"""What a session of bench/gpu.py has seen, as the ledger of docs/gpu.md.

    python bench/gpu_ledger.py outputs/gpu/2026-11-29_10-00-00 --write

Prints the table; with --write it takes the place of the one in the document. Rehearsals are
refused.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.output import interrupt

if __name__ == "__main__":
    interrupt.start()

from bench import ROOT
from bench.output.faults import in_one_sentence


@in_one_sentence("--document")
def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="of a session, outputs/gpu/TIME")
    parser.add_argument("--write", action="store_true", help="into the document")
    parser.add_argument("--document", type=Path, default=ROOT / "docs" / "gpu.md")
    args = parser.parse_args(arguments)
    with interrupt.importing():
        from bench.on_gpu import ledger
        from bench.output.markdown import put
    values = ledger.read(args.folder)
    rows = ledger.updated(ledger.claims(args.document.read_text()), values)
    text = ledger.table(rows)
    print(text)
    if args.write:
        put(args.document, ledger.NAME, text)
        print(f"written: {args.document}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
