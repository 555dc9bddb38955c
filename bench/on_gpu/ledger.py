"""The ledger in docs/gpu.md: what a session has seen on hardware, claim by claim.

The document holds the claims; here is what speaks for each. A claim that the session did not look
at keeps what it says, and nothing is said that results.json does not hold.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench.errors import UserError
from bench.on_gpu.summary import assumptions, card
from bench.output.markdown import table as table_of

NAME = "gpu ledger"
TITLES = ("claim", "seen on hardware", "seen without")
Values = Mapping[str, dict]
Judge = Callable[[Values], str | None]


def read(folder: Path) -> Values:
    """The results of a session on a GPU.

    Raises:
        UserError: there are none, they are those of a rehearsal, or nobody knows of what GPU.
    """
    path = folder / "results.json"
    try:
        values = json.loads(path.read_text())
        facts = values["facts"]
        rehearsal = facts["rehearsal"]
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): name a session's folder"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} lacks the facts of a session: run one with the part facts"
        ) from error
    if rehearsal is not False:
        raise UserError(f"{folder} is a rehearsal on a CPU: only a session on a GPU is evidence")
    if facts.get("fault") or not isinstance(facts.get("gpu"), dict):
        why = facts.get("fault") or "its GPU is unknown"
        raise UserError(f"{folder} is no evidence ({why}): run a session on a GPU")
    return values


# ---- what speaks for a claim --------------------------------------------------------------------


def tested(*places: str) -> Judge:
    """Tests: a file of tests/, "a/test_x.py", or some of it, "a/test_x.py::test_begins_so"."""

    def judge(values: Values) -> str | None:
        counts = {"passed": 0, "failed": 0, "error": 0}
        silent, cut = [], []
        for place in places:
            file, _, _ = place.partition("::")
            value = values.get("tests", {}).get(f"tests/{file}", {})
            outcomes = value.get("outcomes", {})
            met = [o for name, o in outcomes.items() if name.startswith(f"tests/{place}")]
            met = [o for o in met if o in counts]
            for outcome in met:
                counts[outcome] += 1
            if not met:
                silent.append(place)
            elif "error" in value:
                cut.append(file)
        ran = sum(counts.values())
        if not ran:
            return None
        wrong = ran - counts["passed"]
        said = f"NO: {wrong} of {ran} tests fail" if wrong else f"{ran} tests pass"
        if not wrong and (silent or cut):
            said = f"in part: {said}"
        said += "".join(f"; {place} did not run" for place in silent)
        return said + "".join(f"; {file} did not run to its end" for file in dict.fromkeys(cut))

    return judge


def fragments(values: Values) -> str | None:
    """The golden files."""
    equal = values.get("fragments", {}).get("equal_to_the_emulator")
    if not equal:
        return None
    wrong = [name for name, same in equal.items() if not same]
    return f"NO: {', '.join(wrong)} differ" if wrong else "golden files equal the emulator's"


def probe(values: Values) -> str | None:
    """What was assumed of the hardware."""
    value = values.get("probe", {})
    rows = value.get("rows")
    if not rows:
        return None
    wrong = [str(r.get("name")) for r in rows if r.get("holds") == "no"]
    said = assumptions(rows)
    if wrong:
        said = f"NO: {said}; not {', '.join(wrong)}"
    return f"{said}; the probe did not run to its end" if "error" in value else said


def sanitizer(values: Values) -> str | None:
    """compute-sanitizer; the program without it is no evidence of this."""
    said = []
    for check in ("memcheck", "racecheck"):
        value = values.get("sanitizer", {}).get(check, {})
        if value.get("exit") is None:
            continue
        clean = value["exit"] == 0
        said.append(f"{check} {'clean' if clean else 'NOT clean'} ({value.get('says', '')})")
    return "; ".join(said) or None


def speed(values: Values) -> str | None:
    """The published ratios, and images/s."""
    rows = values.get("rows", {})
    said = []
    for name, v in rows.items():
        if "ratio" in v and "error" not in v:
            interval = v.get("ratio_interval")
            ends = f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else ""
            said.append(f"{name.replace(', interleaved', '')}: {v['ratio']:.2f} times{ends}")
    for name in ("FS K=8, batch 128", "FS K=10, batch 128"):
        v = rows.get(name, {})
        if "images_per_s" in v and "error" not in v:
            said.append(f"{name}: {v['images_per_s']:,.0f} images/s")
    return "; ".join(said) or None


# By the beginning of the claim in docs/gpu.md.
JUDGES: dict[str, Judge] = {
    "every kernel equals oracle (b)": tested("kernels/test_cuda_direct.py"),
    "whole networks equal the CPU": tested(
        "network/test_cuda_network.py::test_networks_on_a_gpu", "network/test_cuda_maps.py"
    ),
    "the PTX behind the names": fragments,
    "what the kernels and the tile model assume of the hardware": probe,
    "a rate-coded step equals its oracle": tested(
        "kernels/test_cuda_direct.py::test_ragged_steps_of_rate_coded",
        "kernels/test_cuda_direct.py::test_a_rate_coded_layer",
        "rate/test_cuda_rate.py",
    ),
    "operators under torch": tested(
        "network/test_cuda_network.py::test_compiles",
        "network/test_cuda_network.py::test_opcheck",
        "network/test_cuda_network.py::test_another_gpu",
        "network/test_cuda_network.py::test_the_current_stream",
    ),
    "torch's current stream is found": tested(
        "network/test_cuda_network.py::test_the_current_stream",
        "network/test_cuda_network.py::test_streams_are_told",
    ),
    "the launchers equal plain loops": sanitizer,
    "speed": speed,
}

# ---- the table ----------------------------------------------------------------------------------


def claims(document: str) -> list[list[str]]:
    """The rows of the ledger in the document: claim, seen on hardware, seen without.

    Raises:
        UserError: the document has no such table between its marks.
    """
    _, _, rest = document.partition(f"<!-- {NAME}: begin -->")
    block, closed, _ = rest.partition(f"<!-- {NAME}: end -->")
    rows = [
        [cell.strip() for cell in text.strip().strip("|").split("|")]
        for text in block.splitlines()
        if text.strip().startswith("|")
    ]
    if not closed or len(rows) < 3 or any(len(row) != len(TITLES) for row in rows):
        raise UserError(
            f"there is no table of {len(TITLES)} columns between <!-- {NAME}: begin --> and "
            f"<!-- {NAME}: end -->: put the ledger there"
        )
    return rows[2:]


def updated(rows: Sequence[Sequence[str]], values: Values) -> list[list[str]]:
    """The rows with what the session saw in their second column."""
    where = card(values["facts"])
    found = []
    for claim, seen, without in rows:
        said = next((judge(values) for key, judge in JUDGES.items() if claim.startswith(key)), None)
        cell = seen if said is None else f"{said} ({where})".replace("|", "/").replace("\n", " ")
        found.append([claim, cell, without])
    return found


def table(rows: Sequence[Sequence[str]]) -> str:
    """As Markdown."""
    return "\n".join(table_of(TITLES, rows))
