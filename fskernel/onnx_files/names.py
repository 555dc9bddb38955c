"""What the submodules of a file's network are called: see docs/onnx.md."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from torch import nn

Path = tuple[str, ...]
# By torch's exporter: the paths of the modules around a node, from the root on, and its own name.
_SCOPES = "pkg.torch.onnx.name_scopes"
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# What a module has already, and the network itself besides.
_TAKEN = {*dir(nn.Module()), "inputs", "outputs"}


def spelt(nodes: Sequence) -> list[Path]:
    """The names of nodes (NodeProto) as paths, with the operator at the end if it is there."""
    counters: Counter[str] = Counter()
    return [_segments(node, counters) for node in nodes]


def paths(full: Sequence[Path], operators: Sequence[str]) -> list[str]:
    """The paths of modules, unique, and never inside another one's.

    Args:
        full: the names of the nodes that become modules, as `spelt`. operators: of these nodes.
    """
    within = Counter(path[:n] for path in full for n in range(1, len(path)))
    whole = set(full)
    used: set[Path] = set()
    around: set[Path] = set()
    found = []
    for path, operator in zip(full, operators):
        short = path[:-1]
        if short and re.fullmatch(rf"{operator}(_+\d+)?", path[-1]):
            if within[short] == 1 and short not in whole:
                path = short
        path = _free(path, used, around)
        used.add(path)
        around.update(path[:n] for n in range(1, len(path)))
        found.append(".".join(path))
    return found


def _segments(node, counters: Counter[str]) -> Path:
    """The parts of a node's name, or of its weight's where it tells of no structure."""
    name = node.name
    if not re.search(r"[/.]", name):
        name = _module(node) or name
    found: list[str] = []
    before = ""
    for part in filter(None, re.split(r"/|::", name)):
        inner = part.removeprefix(f"{before}.") if before else part
        found += [_clean(segment) for segment in inner.split(".") if segment]
        before = part
    if not found:
        found = [f"{node.op_type}_{counters[node.op_type]}"]
        counters[node.op_type] += 1
    return tuple(found)


def _module(node) -> str:
    """The module of a node whose own name tells of no structure, and its operator; "": unknown.

    A batch norm that the exporter has folded into a layer leaves its module's note there, and not
    its weight; weights that are equal, as those of new batch norms, may be kept once.
    """
    owner, _, parameter = (node.input[1] if len(node.input) > 1 else "").rpartition(".")
    by_weight = f"{owner}/{node.op_type}" if owner and parameter == "weight" else ""
    if by_weight and node.op_type in _LAYERS:
        return by_weight
    for note in node.metadata_props:
        if note.key == _SCOPES:
            modules = re.findall(r"'([^']*)'", note.value)[:-1]
            return f"{modules[-1] if modules else ''}/{node.op_type}"
    return by_weight


def _clean(segment: str) -> str:
    segment = re.sub(r"\W", "_", segment, flags=re.ASCII)
    return f"{segment}_" if segment in _TAKEN else segment


def _free(path: Path, used: set[Path], around: set[Path]) -> Path:
    """The path, changed as far as it is another node's, lies inside one or around one."""
    for n in range(1, len(path)):
        while path[:n] in used:
            path = (*path[: n - 1], f"{path[n - 1]}_", *path[n:])
    first, count = path, 1
    while path in used or path in around:
        count += 1
        path = (*first[:-1], f"{first[-1]}_{count}")
    return path
