"""The results of a session as one page of Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from bench.output.markdown import table

SLOWEST = 15  # layers shown of a row; results.json has all
FAILURES = 20  # failed tests shown
Values = Mapping[str, dict]


def page(values: Values) -> str:
    """All parts that have begun."""
    sections = (head, ratios, speeds, layers, probe, tests, sanitizer, fragments)
    found = (list(section(values)) for section in sections)
    return "\n\n".join("\n".join(part) for part in found if part) + "\n"


def card(facts: Mapping) -> str:
    """The device and what else decides about times, in a few words."""
    gpu, smi = facts.get("gpu"), facts.get("nvidia_smi")
    name = gpu["name"] if isinstance(gpu, dict) else facts.get("device", "unknown device")
    driver = smi.get("driver_version") if isinstance(smi, dict) else None
    versions = facts.get("versions")
    torch = versions.get("torch") if isinstance(versions, dict) else None
    day = str(facts.get("time", "unknown day"))[:10]
    words = [name, f"driver {driver}" if driver else "", f"torch {torch}" if torch else "", day]
    words.append(f"commit {facts.get('commit')}")
    return ", ".join(filter(None, words))


def head(values: Values) -> Iterator[str]:
    """What it was measured on, and whether it is whole."""
    facts = values.get("facts", {})
    yield "# What ran on this GPU"
    if facts.get("rehearsal") is True:
        yield ""
        yield "**A rehearsal on a CPU: no figure here is one of a GPU.**"
    if facts:
        yield ""
        yield card(facts)
        if facts.get("fault"):
            yield f"Fault: {facts['fault']}"
        if facts.get("error"):
            yield f"Facts: {facts['error']}"
        if isinstance(facts.get("nvidia_smi"), dict):
            yield "; ".join(f"{k} {v}" for k, v in facts["nvidia_smi"].items())
    if values.get("interrupted"):
        yield ""
        yield f"Interrupted: {values['interrupted']}."


def missing(value: Mapping) -> str:
    """Why there is no result, in words; empty where there is one."""
    if "skipped" in value:
        return f"skipped: {value['skipped']}"
    if "error" in value:
        words = [w for w in value.get("cuda", []) if w not in value["error"]]
        return f"error: {'; '.join([value['error'], *words[:1]])}"
    return ""


def cell(value: Mapping) -> str:
    """A row in a few words, for the terminal."""
    if missing(value):
        return missing(value)
    if "images_per_s" in value:
        return f"{value['images_per_s']:,.1f} images/s"
    if "ratio" in value:
        return f"{value['ratio']:.3f} times as fast{_interval(value)}"
    if "layers" in value:
        return f"{sum(v['us'] for v in value['layers'].values()):,.0f} us in all layers"
    if "memory_bytes" in value:
        return _peaks(value)
    return "done"


def _peaks(value: Mapping) -> str:
    parts = []
    for key, unit, scale in (
        ("memory_bytes", "TB/s", 1e12),
        ("int8_macs", "T int8 multiply-accumulates/s", 1e12),
        ("fp16_macs", "T fp16 multiply-accumulates/s", 1e12),
    ):
        if key in value:
            parts.append(f"{value[key] / scale:,.2f} {unit}")
    return "; ".join(parts)


def _interval(value: Mapping) -> str:
    found = value.get("ratio_interval")
    return f" [{found[0]:.3f}, {found[1]:.3f}]" if found else ""


def ratios(values: Values) -> Iterator[str]:
    """FS against fp16 in one process."""
    rows = {k: v for k, v in values.get("rows", {}).items() if "ratio" in v}
    if not rows:
        return
    yield "## Against torch fp16 (on a GPU, cuDNN), in turn in one process"
    yield ""
    yield from table(
        ("row", "times as fast", "95 % interval of the median", "quartiles", "FS us", "fp16 us"),
        (
            (
                name,
                f"{v['ratio']:.3f}",
                _interval(v).strip() or "-",
                f"{v['ratio_iqr'][0]:.3f} to {v['ratio_iqr'][1]:.3f}",
                *(f"{1e6 * v['seconds'][k]:,.1f}" for k in ("fs", "fp16")),
            )
            for name, v in rows.items()
        ),
    )


def shares(work: Mapping, seconds: float, peaks: Mapping) -> list[str]:
    """Of the measured int8 and memory peaks."""
    found = []
    for key in ("int8_macs", "memory_bytes"):
        known = work.get(key) and peaks.get(key)
        found.append(f"{work[key] / seconds / peaks[key]:.1%}" if known else "-")
    return found


def speeds(values: Values) -> Iterator[str]:
    """All rows."""
    rows = {k: v for k, v in values.get("rows", {}).items() if "ratio" not in v}
    if not rows:
        return
    peaks = rows.get("peaks", {})
    yield "## Rows"
    yield ""
    found = []
    for name, v in rows.items():
        if "images_per_s" not in v:
            found.append((name, cell(v), "-", "-", "-"))
            continue
        name = "; ".join(filter(None, [name, missing(v), v.get("note")]))
        s = v["seconds"]
        low, high = (1e3 * t for t in s["iqr"])
        found.append(
            (
                name,
                f"{v['images_per_s']:,.1f}",
                f"{1e3 * s['median']:.3f} ({low:.3f} to {high:.3f})",
                *shares(v.get("work", {}), s["median"], peaks),
            )
        )
    yield from table(
        ("row", "images/s", "ms a batch (quartiles)", "of int8 peak", "of memory peak"), found
    )


def layers(values: Values) -> Iterator[str]:
    """The slowest layers."""
    rows = values.get("rows", {})
    peaks = rows.get("peaks", {})
    for name, row in rows.items():
        if not row.get("layers"):
            continue
        each = row["layers"]
        total = sum(v["us"] for v in each.values())
        slowest = sorted(each.items(), key=lambda item: -item[1]["us"])[:SLOWEST]
        yield f"## {name}"
        yield ""
        if missing(row):
            yield missing(row)
            yield ""
        yield (
            f"{len(each)} layers, {total:,.1f} us one by one, "
            f"{sum(v['us_in_network'] for v in each.values()):,.1f} us in the network; the "
            f"{len(slowest)} slowest, microseconds a call"
        )
        yield ""
        yield from table(
            ("layer", "us", "in the network", "share", "of int8 peak", "of memory peak", "kernel"),
            (
                (
                    k,
                    f"{v['us']:.2f}",
                    f"{v['us_in_network']:.2f}",
                    f"{v['us'] / total:.1%}",
                    *shares(v, 1e-6 * v["us"], peaks),
                    v["kernel"],
                )
                for k, v in slowest
            ),
        )
        yield ""


def assumptions(rows: list[dict]) -> str:
    """How many of the probe's rows hold; it says "yes", "no" or "not run" of each."""
    counts = Counter(row.get("holds") for row in rows)
    told = [f"{counts['yes']} of {len(rows)} assumptions hold"] if rows else []
    told += [f"{counts['no']} do not"] if counts["no"] else []
    rest = len(rows) - counts["yes"] - counts["no"]
    return ", ".join([*told, *([f"{rest} were not answered"] if rest else [])])


def probe(values: Values) -> Iterator[str]:
    """What was assumed of the hardware."""
    if "probe" not in values:
        return
    value = values["probe"]
    rows = value.get("rows", [])
    yield "## Probe"
    yield ""
    yield "; ".join(filter(None, [assumptions(rows), missing(value)]))
    if rows:
        yield ""
        yield from table(
            ("", "assumed", "seen", "holds", "detail"),
            (
                (
                    r.get("name", ""),
                    r.get("assumed", ""),
                    r.get("seen", ""),
                    "**no**" if r.get("holds") == "no" else r.get("holds", "-"),
                    r.get("detail", ""),
                )
                for r in rows
            ),
        )


def tests(values: Values) -> Iterator[str]:
    """The tests that need a GPU."""
    files = values.get("tests", {})
    if not files:
        return
    yield "## Tests"
    yield ""
    yield from table(
        ("file", "passed", "failed", "skipped", "note"),
        (
            (
                name,
                *(v.get("counts", {}).get(word, 0) for word in ("passed",)),
                sum(v.get("counts", {}).get(word, 0) for word in ("failed", "error")),
                v.get("counts", {}).get("skipped", 0),
                missing(v),
            )
            for name, v in files.items()
        ),
    )
    failed = [t for v in files.values() for t, o in v.get("outcomes", {}).items()
              if o in ("failed", "error")]  # fmt: skip
    if failed:
        yield ""
        yield from (f"- failed: `{name}`" for name in failed[:FAILURES])
        if len(failed) > FAILURES:
            yield f"- and {len(failed) - FAILURES} more, see the logs in tests/"


def sanitizer(values: Values) -> Iterator[str]:
    """compute-sanitizer."""
    found = values.get("sanitizer", {})
    if not found:
        return
    yield "## Sanitizer"
    yield ""
    if "skipped" in found:
        yield missing(found)
        return
    yield from table(
        ("check", "exit", "says", "note"),
        (
            (k, v.get("exit", "-"), v.get("says", ""), missing(v) or v.get("note", ""))
            for k, v in found.items()
        ),
    )


def fragments(values: Values) -> Iterator[str]:
    """The golden files."""
    found = values.get("fragments", {})
    if not found:
        return
    yield "## Fragments"
    yield ""
    equal = found.get("equal_to_the_emulator", {})
    words = [f"{k}: {'equal' if v else '**differs**'}" for k, v in equal.items()]
    yield "; ".join(filter(None, [*words, missing(found)]))
