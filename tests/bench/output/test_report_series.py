"""Risk: the report of a sweep draws runs at wrong places, or its links lead nowhere."""

import json

import pytest
from harness import recorded
from report_page import Page

from bench.output.report import curves, network_chart, series_page
from bench.output.series import Series
from bench.output.tables import runs as tables
from bench.output.tables.runs import Job


def jobs(tmp_path, **given):
    """Jobs by their options, of which the first has a report."""
    made = []
    for i, (name, v) in enumerate(given.items()):
        folder = tmp_path / str(i)
        folder.mkdir()
        made.append(Job(name, folder, v))
    (tmp_path / "0" / "report.html").touch()
    return made


def write(made, command, folder):
    series_page.write(made, tables.comparison(made), command, folder)


def read(tmp_path):
    return Page((tmp_path / "report.html").read_text())


def test_runs_are_drawn_over_k_with_the_gate(tmp_path):
    shared = "model=net data.root='a b'"
    given = {f"{shared} K=6": recorded(6, 0.9), f"{shared} K=4": recorded(4, 0.85)}
    write(jobs(tmp_path, **given), "python bench/run.py -m K=6,4", tmp_path)
    found = read(tmp_path)
    assert found.faults() == []
    drawn = found.json("figures")
    assert set(drawn) == {"accuracy_over_k", "spikes_over_k", "time_over_k"}
    points, gate = drawn["accuracy_over_k"]["data"]
    assert (points["x"], points["y"]) == ([4, 6], [0.85, 0.9])
    assert gate["y"] == [pytest.approx(0.891)] * 2 and "gate: 99%" in gate["name"]
    time = drawn["time_over_k"]["data"][0]
    assert time["y"] == [10.0, 10.0] and time["error_y"]["array"] == [2.5, 2.5]
    assert time["error_y"]["arrayminus"] == [2.0, 2.0]
    text = " ".join(found.text.split())
    assert (
        "The fewest time steps that keep 99% of the dense network's accuracy are K=6: top-1 90.0 %"
        in text
    )
    assert "1 of 2 runs keep it" in text and "data.root" not in text.replace("-m", "")
    assert found.links() == ["0/report.html", "table.md", "table.csv", "table.tex"]


def test_the_data_of_all_runs_are_embedded(tmp_path):
    made = jobs(tmp_path, **{"K=4": recorded(4, 0.8), "K=5": recorded(5, 0.9)})
    write(made, "command", tmp_path)
    found = read(tmp_path).json("results")
    assert [one["results"] for one in found] == [job.values for job in made]
    assert [(one["options"], one["directory"]) for one in found] == [("K=4", "0"), ("K=5", "1")]


def test_runs_that_differ_in_more_than_k_are_lines_of_their_own(tmp_path):
    runs = [
        curves.Run("neuron.rounding=floor K=4", recorded(4, 0.5)),
        curves.Run("K=4", recorded(4, 0.7)),
        curves.Run("K=5 neuron.rounding=floor", recorded(5, 0.6)),
        curves.Run("neuron.K=5", recorded(5, 0.8)),
    ]
    lines = curves.figures(runs)["accuracy_over_k"].data[:-1]
    assert {line.name: line.y for line in lines} == {
        "neuron.rounding=floor": (0.5, 0.6),
        "Few Spikes": (0.7, 0.8),
    }


def test_without_labels_there_is_no_gate_and_without_weights_no_accuracy(tmp_path):
    runs = [curves.Run(f"K={K}", recorded(K, None)) for K in (4, 5)]
    drawn = curves.figures(runs)["accuracy_over_k"]
    assert len(drawn.data) == 1 and drawn.data[0].y == (0.98, 0.98)
    guessed = {f"K={K}": recorded(K, None, random_weights=True) for K in (4, 5)}
    write(jobs(tmp_path, **guessed), "command", tmp_path)
    found = read(tmp_path)
    assert set(found.json("figures")) == {"time_over_k"}
    for words in ("top-1", "spikes an image", "logit error", "same answer"):
        assert words not in found.text
    assert "No gate: the accuracy is not known" in " ".join(found.text.split())


def test_runs_of_one_k_are_compared_by_time(tmp_path):
    runs = [curves.Run(f"plane_bits={n}", recorded(8, None)) for n in (1, 2)]
    drawn = curves.figures(runs)
    assert list(drawn) == ["times"]
    assert [len(bars.x) for bars in drawn["times"].data] == [0, 2]


@pytest.mark.parametrize(
    "names, short",
    [
        (["a=1 K=4", "a=1 K=5"], ["K=4", "K=5"]),
        (["K=4"], ["K=4"]),
        (["a=1 b=2", "a=1 b=2"], ["a=1 b=2", "a=1 b=2"]),
        (["a=1", "a=1 K=4"], ["a=1", "K=4"]),
        (["""'r=["x y"]' K=4""", """'r=["x y"]' K=5"""], ["K=4", "K=5"]),
        (["it's", "it's K=4"], ["it's", "K=4"]),
    ],
)
def test_labels_say_what_differs(names, short):
    assert tables.labels(names) == short


def test_a_job_in_another_folder_has_no_link(tmp_path):
    made = jobs(tmp_path, **{"K=4": recorded(4, 0.9)})
    away = made[0]._replace(directory=tmp_path.parent)
    (tmp_path.parent / "report.html").touch()
    assert series_page.link(away, tmp_path) is None
    assert series_page.link(made[0], tmp_path) == "0/report.html"


@pytest.mark.parametrize("report", [True, False])
def test_a_series_leaves_a_report_after_every_job_and_a_failed_one_costs_nothing(tmp_path, report):
    series = Series(tmp_path, "command", "hydra.sweep.dir", report)
    (tmp_path / "0").mkdir()
    series.attempt("K=4", tmp_path / "0", lambda: recorded(4, 0.9))
    assert (tmp_path / "report.html").exists() == report

    def fails():
        raise OSError(5, "Input/output error")

    series.attempt("K=5", tmp_path / "1", fails)
    assert series.close() == 1 and (tmp_path / "table.md").exists()
    if report:
        assert [one["options"] for one in read(tmp_path).json("results")] == ["K=4"]


def test_hostile_options_are_shown_and_do_nothing(tmp_path):
    hostile = "model.name='</script><img src=x onerror=alert(1)>'"
    given = {f"{hostile} K={K}": recorded(K, 0.9, model="<b>x") for K in (4, 5)}
    given["K=6"] = recorded(6, 0.9)
    write(jobs(tmp_path, **given), hostile, tmp_path)
    found = read(tmp_path)
    assert found.faults() == [] and hostile in found.text and "<b>x" in found.text
    assert "<img" not in json.dumps(found.json("figures"))


def test_layers_stand_behind_what_they_read_and_never_on_each_other():
    graph = {
        "in": [],
        "a": ["in"],
        "b": ["in"],
        "c": ["a"],
        "cat": ["b", "c"],
        "out": ["cat", "in"],
    }
    at = network_chart.places(graph)
    assert len(set(at.values())) == len(graph)
    assert all(at[name][0] > at[s][0] for name, sources in graph.items() for s in sources)
    assert at["cat"] == (3, 0) and at["b"] == (1, -1)
    assert network_chart.deepest(at) == 1
    lines = network_chart.connections(graph, at)
    assert lines.x.count(None) == sum(map(len, graph.values()))
    assert (2.0, network_chart.ARC) in list(zip(lines.x, lines.y))  # in -> out, around the others
