"""Risk: a table of many runs cuts off digits, or is not the same as CSV, Markdown and LaTeX."""

import csv
import io

import pytest
from harness import recorded
from rich.console import Console

from bench.output.tables import runs
from bench.output.tables.comparison import EMPTY, Cell, Column, Comparison
from bench.output.tables.fitting import Fitting
from bench.output.tables.numbers import milliseconds, share

COLUMNS = [Column("name", "name"), Column("ms", "ms\nan image"), Column("none", "nothing")]


def shown(fitting, width):
    console = Console(width=width)
    with console.capture() as capture:
        console.print(fitting)
    return capture.get()


def job(name, folder, **more):
    return runs.Job(name, folder, recorded(4, 0.9) | more)


def test_columns_without_room_stand_below_with_the_rows_names():
    head = ["", *(f"column {i}" for i in range(6))]
    made = Fitting("title", head, [["row", *(f"{i}23,456,789" for i in range(6))]])
    for width in (200, 60, 30, 12):
        text = shown(made, width)
        assert all(f"{i}23,456,789" in text for i in range(6)) and "…" not in text
        assert all(name in text for name in head)
        if width > 12:  # below that, a line a cell
            assert max(map(len, text.splitlines())) <= width
    assert [shown(made, width).count("row") for width in (200, 60, 30)] == [1, 2, 6]


def test_four_forms_of_one_table():
    rows = [
        [Cell("a|b_&%", "a|b_&%"), Cell("1.2 (1.0–1.5)", 1.23456, [1.0, 1.5]), EMPTY],
        [Cell("c\nd", "c\nd"), Cell("2", 2), EMPTY],
    ]
    made = Comparison("50 % of it", COLUMNS, rows, ["a note"])
    first, second = csv.DictReader(io.StringIO(made.csv()))
    assert first == {"name": "a|b_&%", "ms": "1.23456", "ms_low": "1.0", "ms_high": "1.5"}
    assert second["ms_low"] == second["ms_high"] == "", "no interval"
    text = made.markdown("python x")
    assert text.startswith("`python x`\n\n50 % of it\n\n| name | ms an image |\n")
    assert "| a/b_&% | 1.2 (1.0–1.5) |\n| c d | 2 |\n\n- a note\n" in text
    tex = made.latex("python x %")
    assert r"a|b\_\&\% & 1.2 (1.0--1.5) \\" in tex and r"c d & 2 \\" in tex
    assert tex.startswith("% python x %\n% 50 % of it\n% a note\n\\begin{tabular}{lr}\n")
    assert "nothing" not in text + tex + made.csv() + shown(made.fitting(), 80)


def test_what_tex_reads_as_a_command_is_text():
    made = Comparison("", COLUMNS[:1], [[Cell(r"\input{x} $a^b ~#", "x")]])
    line = r"\textbackslash{}input\{x\} \$a\textasciicircum{}b \textasciitilde{}\# \\"
    assert line in made.latex("")


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_runs_are_compared_by_what_differs(tmp_path, width):
    jobs = [
        job("model=net data.root='a b' K=4", tmp_path),
        job("model=net data.root='a b' K=6", tmp_path, **recorded(6, 0.85)),
    ]
    text = shown(runs.comparison(jobs).fitting(), width)
    flowing = " ".join(text.split())
    assert "data.root" not in text and "K=4 " in text and "…" not in text
    for part in ("90 % [70, 95]", "85 % [70, 95]", "valid", "not valid", "3.0x faster"):
        assert part in flowing
    for part in ("10.0 (8.00–12.5)", "40.0 (38.5–50.0)", "12 steps", "60 steps", "1,000"):
        assert part in flowing
    assert max(map(len, text.splitlines())) <= width


def test_the_dense_network_stands_once_above_the_runs_that_share_it(tmp_path):
    jobs = [job("K=4", tmp_path), job("K=6", tmp_path), job("batch=8", tmp_path, batch=8)]
    names = [row[0].text for row in runs.comparison(jobs).rows]
    assert names == [
        "ANN fp32, in the run below",
        "K=4",
        "K=6",
        "ANN fp32, in the run below",
        "batch=8",
    ]


def test_a_note_says_of_which_runs_it_is_true(tmp_path):
    given = {"K=4": ["of all", "of two"], "K=5": ["of all"], "K=6": ["of two", "own", "of all"]}
    jobs = [job(f"seed=1 {name}", tmp_path, notes=notes) for name, notes in given.items()]
    wanted = ["of all", "K=4, K=6: of two", "K=6: own"]
    assert runs.comparison(jobs).notes == runs.notes(jobs) == wanted
    assert runs.notes(jobs[:1]) == ["of all", "of two"]


def test_random_weights_and_the_emulator_leave_columns_out(tmp_path):
    guessed = runs.comparison([job("K=4", tmp_path, random_weights=True)])
    keys = [column.key for column in guessed.columns]
    assert "top1" not in keys and "spikes_per_image" not in keys and "ms" in keys
    emulated = {key: v for key, v in recorded(4, 0.9).items() if not key.startswith("ratio")}
    (row,) = runs.comparison([runs.Job("K=4", tmp_path, emulated)]).rows
    assert [cell.text for cell in row] == ["K=4", "4"]


@pytest.mark.parametrize(
    "given, text",
    [
        ((None, 9), "-"),
        ((0.9375, 16), "15 of 16"),
        ((0.5, 1000, None), "500 of 1,000"),
        ((0.98, 100, [0.931, 0.995]), "98 % [93, 100]"),
        ((0.9803, 597, [0.966, 0.9887]), "98.0 % [96.6, 98.9]"),
    ],
)
def test_a_share_has_the_digits_that_its_images_give(given, text):
    assert share(*given) == text


def test_short_times_have_as_many_digits_as_long_ones():
    shown = [milliseconds(speed) for speed in (0.0123, 81.25, 999.9, 1250.0, 108_460.0)]
    assert shown == ["81,300", "12.3", "1.00", "0.800", "0.00922"]
