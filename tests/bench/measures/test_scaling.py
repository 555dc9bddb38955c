"""Risk: an axis varies something else than it says, or an interrupt loses the finished ones."""

import csv
import json

import pytest
from harness import composed
from report_page import Page

from bench.errors import UserError
from bench.inputs.checks import validate
from bench.measures.rivals import figures, growth, race
from bench.output.report import scaling_page
from bench.output.tables.scaling import drawn, logarithmic

SMALL = [
    "experiment=scaling",
    "model=resnet18",
    "model.input.crop=32",
    "rounds=2",
    "scaling.size=[32,48]",
    "scaling.width=[]",
    "scaling.K=[8,9]",
    "scaling.batch=[]",
    "scaling.thread_batches=[]",
    "rivals.only=[few spikes,'torch fp32, eager']",
]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scaling")
    return growth.run(composed(*SMALL), folder, command="python x"), folder


def test_every_axis_has_its_points_and_rivals(found):
    v, folder = found
    assert v["complete"] and json.loads((folder / "results.json").read_text()) == v
    size, K = v["axes"]
    rows = [(row["name"], row["value"]) for row in size["rows"]]
    assert rows == [(n, s) for s in (32, 48) for n in (growth.OURS, "torch fp32, eager")]
    assert [(row["name"], row["value"]) for row in K["rows"]] == [
        (growth.OURS, 8),
        (growth.OURS, 9),
    ]
    for row in size["rows"]:
        ours = row["name"] == growth.OURS
        assert row["ms"] > 0 and ("ratio" in row) is not ours
        assert (row["products_ms"] is not None) is ours
        assert not ours or row["ms"] > row["products_ms"] > 0
    # 16-bit operands take longer where there are 8-bit ones.
    assert K["rows"][1]["products_ms"] >= K["rows"][0]["products_ms"]


def test_growth_leaves_tables_a_figure_and_a_report(found):
    v, folder = found
    rows = list(csv.DictReader((folder / "table.csv").open()))
    assert [row["point"] for row in rows] == [
        "image, pixels a side: 32",
        "image, pixels a side: 48",
        "K, time steps: 8",
        "K, time steps: 9",
    ]
    assert float(rows[0]["few_spikes_ms"]) == v["axes"][0]["rows"][0]["ms"]
    assert rows[2]["torch_fp32_eager_ms"] == ""
    assert (folder / "figures" / "scaling.png").stat().st_size > 10_000
    page = Page((folder / "report.html").read_text())
    assert page.faults() == [] and page.json("results") == v
    assert set(page.json("figures")) == {"axis_0", "axis_1"}


def points(*rows):
    """An axis of one point with such times of rivals, and of their products alone."""
    return {
        "key": "batch",
        "title": "batch",
        "rows": [
            {"name": f"rival {i}", "value": 1, "ms": ms, "ms_quartiles": [ms, ms]}
            | {"products_ms": least}
            for i, (ms, least) in enumerate(rows)
        ],
    }


def test_a_slow_rival_does_not_press_the_others_onto_each_other():
    near, far, least = points((10, 8), (12, None)), points((10, 8), (80, None)), points((10, 1))
    assert [logarithmic(one) for one in (near, far, least)] == [False, True, True]
    v = {"axes": [near, far, least], "model": "net", "K": 8, "input": [9, 7], "batch": 1}
    v |= {"threads": 1, "machine": {"cpu": "a processor"}, "fs.isa": "avx2"}
    for panel, one in zip(figures.scaling(v).axes, v["axes"]):
        wide = logarithmic(one)
        low, high = panel.get_ylim()
        ticks = [tick for tick in panel.get_yticks() if low <= tick <= high]
        assert panel.get_yscale() == ("log" if wide else "linear") and len(ticks) >= 2
        assert ("logarithmic" in panel.get_ylabel()) is wide and (low == 0) is not wide
        axis = scaling_page.chart(one).layout.yaxis
        assert (axis.type == "log") is wide and ("logarithmic" in axis.title.text) is wide
        if wide:
            least, *_, most = sorted(drawn(one))
            assert 10 ** axis.range[0] < least and most < 10 ** axis.range[1]


def test_an_axis_varies_one_thing():
    cfg = composed("experiment=scaling", "scaling.threads=[1,2]", "batch=3", "K=5")
    found = {axis.title: axis for axis in growth.axes(cfg)}
    assert list(found)[:4] == ["image, pixels a side", "width_per_group", "K, time steps", "batch"]
    assert list(found)[4:] == ["threads, batch 1", "threads, batch 8"]
    for title, axis in found.items():
        others = [{k: v for k, v in vars(p).items() if k != axis.key} for p in axis.points]
        assert all(one == others[0] for one in others), title
        assert len({getattr(p, axis.key) for p in axis.points}) == len(axis.points)
    assert {p.batch for p in found["K, time steps"].points} == {3}
    assert {p.batch for p in found["threads, batch 8"].points} == {8}


def test_ctrl_c_keeps_the_finished_axes(tmp_path, monkeypatch):
    real, calls = race.measure, []

    def measure(*given):
        calls.append(1)
        seconds, _ = real(*given)
        return seconds, KeyboardInterrupt() if len(calls) == 1 else None

    monkeypatch.setattr(race, "measure", measure)
    with pytest.raises(KeyboardInterrupt):
        growth.run(composed(*SMALL, "report=false", "rivals.only=[few spikes]"), tmp_path)
    v = json.loads((tmp_path / "results.json").read_text())
    assert v["complete"] is False and len(v["axes"]) == 1 and (tmp_path / "table.csv").exists()


def test_the_width_of_a_network_is_an_argument_that_it_takes(tmp_path):
    cfg = composed(*SMALL, "scaling.width=[16]", "model=resnet50")
    wide = growth.Networks(cfg, tmp_path).module(16)
    assert wide.layer1[0].conv2.out_channels == 16
    with pytest.raises(UserError, match=r"width_argument=width_per_group: .*scaling.width=\[\]"):
        growth.run(composed(*SMALL, "scaling.width=[16]", "model=cifar_resnet8"), tmp_path / "out")
    with pytest.raises(UserError, match="all axes are empty"):
        growth.run(composed(*SMALL, "scaling.size=[]", "scaling.K=[]"), tmp_path / "none")


@pytest.mark.parametrize(
    "option", ["scaling.K=[16]", "scaling.batch=[0]", "scaling.threads=[9999]", "scaling.size=[-1]"]
)
def test_points_that_cannot_be_are_refused(option):
    with pytest.raises(UserError, match=option.partition("=")[0]):
        validate(composed("experiment=scaling", option))
