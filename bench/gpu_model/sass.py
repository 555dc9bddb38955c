"""Reads machine code as cuobjdump prints it: what a kernel's main loop consists of."""

import re
from collections import Counter
from typing import NamedTuple

_LINE = re.compile(r"\s+/\*([0-9a-f]{4,})\*/\s+(?:@(!?U?P\w+)\s+)?([A-Z][A-Z0-9_.]*)\s*(.*?)\s*;")
_SYNC = ("BAR", "DEPBAR", "LDGDEPBAR", "WARPSYNC", "BSSY", "BSYNC", "BREAK")


class Instruction(NamedTuple):
    """One line of machine code."""

    address: int
    predicate: str  # "" where it always runs
    name: str
    operands: str

    @property
    def target(self):
        """Where a branch goes, else None."""
        if not self.name.startswith("BRA"):
            return None
        found = re.search(r"0x([0-9a-f]+)", self.operands)
        return int(found[1], 16) if found else None

    @property
    def kind(self):
        """IMMA, LDSM, LDGSTS, BAR or other; "" for what takes no time worth counting."""
        for kind in ("IMMA", "LDSM", "LDGSTS"):
            if self.name.startswith(kind):
                return kind
        if self.name == "NOP" or self.predicate == "!PT":
            return ""
        return "sync" if self.name.startswith(_SYNC) else "other"


def kernels(text):
    """Mangled name -> instructions."""
    found, code = {}, None
    for line in text.splitlines():
        head = re.match(r"\s+Function : (\S+)", line)
        if head:
            code = found[head[1]] = []
        elif code is not None and (match := _LINE.match(line)):
            address, predicate, name, operands = match.groups()
            code.append(Instruction(int(address, 16), predicate or "", name, operands))
    return found


def main_loops(code):
    """The innermost loops that hold tensor products, without what a round rarely does.

    Rare are the jumps to the next row, chunk and pass: a conditional branch skips them forward, and
    they touch neither shared memory nor the tensor core.
    """
    at = {instruction.address: i for i, instruction in enumerate(code)}
    ranges = []
    for i, instruction in enumerate(code):
        target = at.get(instruction.target)
        if target is not None and target < i:
            if any(each.kind == "IMMA" for each in code[target : i + 1]):
                ranges.append((target, i))
    innermost = [
        (a, b)
        for a, b in ranges
        if not any((c, d) != (a, b) and a <= c and d <= b for c, d in ranges)
    ]
    loops = []
    for a, b in innermost:
        rare = set()
        for i in range(a, b):
            end = at.get(code[i].target)
            if code[i].predicate and end is not None and i < end <= b:
                skipped = range(i + 1, end)
                if not any(code[k].kind in ("IMMA", "LDSM", "LDGSTS", "sync") for k in skipped):
                    rare.update(skipped)
        loops.append([code[i] for i in range(a, b + 1) if i not in rare])
    return loops


def counts(loop):
    """Instructions of a loop by kind."""
    return Counter(instruction.kind for instruction in loop if instruction.kind)
