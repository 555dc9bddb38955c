"""The speed tables: the products they divide by are those of the network, and nothing is lost."""

import json

import pytest
import torch

from bench import layers
from bench.measures.speed import drop_in, layer_times
from fskernel.network.stats import map_sizes


def test_layers_hold_every_product_of_the_network(tmp_path):
    out = tmp_path / "layers.json"
    layers.main(["--model", "resnet18", "--size", "64", "--rounds", "2", "--out", str(out)])
    rows = json.loads(out.read_text())["rows"]
    # 7x7 stem at 32x32; stages of 16, 8, 4, 2 pixels a side; downsampling 1x1 in three of them.
    stem = 64 * 3 * 49 * 32**2
    first = 4 * 64 * 64 * 9 * 16**2
    others = sum(
        (c * c // 2 * 9 + 3 * c * c * 9 + c * c // 2) * side**2
        for c, side in [(128, 8), (256, 4), (512, 2)]
    )
    assert sum(row["macs"] * row["count"] for row in rows) == stem + first + others
    assert all(len(row["seconds"]) == 2 and min(row["seconds"]) > 0 for row in rows)
    assert all(0 < row["share"] < 1.2 for row in rows if row["macs"] and row["peak"])
    assert not any(row["torch_seconds"] for row in rows)


def test_depthwise_layers_are_compared_with_torch_s_of_the_same_shape(monkeypatch):
    from fskernel import convert

    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 24, 1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(24, 24, (5, 3), 2, (2, 1), groups=24),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(24, 2),
    ).eval()
    x = torch.randn(1, 3, 11, 14)
    net = convert(module, x, K=4)
    rows = layer_times.measure(net, x, rounds=2)
    assert [len(row.torch_seconds) for row in rows] == [0, 0, 2, 0]
    calls = layer_times.depthwise_calls(net.steps[2], *map_sizes(net.steps, 11, 14)["0"])
    assert [tuple(call().shape) for call in calls] == [(1, 24, 6, 7)] * 2


@pytest.mark.parametrize(
    "argument", ["--model=no_such_net", "--K=0", "--K=16", "--rounds=0", "--size=0", "--threads=0"]
)
def test_layers_refuse_bad_arguments_before_any_work(argument, capsys):
    with pytest.raises(SystemExit):
        layers.main([argument])
    assert argument.partition("=")[0] in capsys.readouterr().err


def test_drop_ins_are_timed_both_ways_and_saved(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(drop_in, "MAP", (2, 3, 5, 4))
    out = tmp_path / "drop_in.json"
    small = ["--drop-in", "--size", "32", "--rounds", "2", "--batch", "2", "--out", str(out)]
    layers.main([*small, "--only", "3->64 7x7/2 ", "512->512 3x3/1", "float16", "decode"])
    record = json.loads(out.read_text())
    rows = {row["name"]: row for row in record["rows"]}
    halves = [f"encode {kind} {m}" for kind in ("float16", "bfloat16") for m in drop_in.FORMATS]
    assert list(rows) == ["3->64 7x7/2 32x32", "512->512 3x3/1 1x1", *halves, "decode"]
    stem, last, *others = rows.values()
    assert set(last["ratios"]) == {"channels_last", "contiguous", "spikes"}
    assert set(stem["ratios"]) == {"channels_last", "contiguous"}, "an image has a sign"
    assert all(set(row["ratios"]) == {"conversion"} for row in others)
    times = [s for row in record["rows"] for s in row["seconds"].values()]
    assert all(len(s) == 2 and min(s) > 0 for s in times)
    found = {(part["batch"], part["comparison"]): part for part in record["summary"]}
    both = [row["ratios"]["contiguous"] for row in (stem, last)]
    part = found[2, "contiguous"]
    assert part["geometric_mean"] == pytest.approx((both[0] * both[1]) ** 0.5)
    assert (part["worst"], part["rows"]) == (min(both), 2)
    assert part["below_1"] == sum(ratio < 1 for ratio in both)
    assert found[None, "conversion"]["rows"] == 5
    assert "3->64 7x7/2 32x32" in capsys.readouterr().out


def test_a_drop_in_is_held_against_the_faster_memory_format_of_each_round():
    seconds = {
        "FS channels_last": [1.0, 1.0, 2.0],
        "FS contiguous": [2.0, 2.0, 2.0],
        "FS spikes": [0.5, 0.5, 1.0],
        "torch channels_last": [3.0, 9.0, 4.0],
        "torch contiguous": [6.0, 4.0, 8.0],
    }
    ratios = drop_in.Row("", 1, seconds).ratios
    assert ratios == {"channels_last": 3.0, "contiguous": 3.0, "spikes": 6.0}
    assert drop_in.Row("", None, {"fskernel": [2.0], "torch": [1.0]}).ratios == {"conversion": 0.5}


def test_drop_ins_are_all_convolutions_of_the_network_once():
    found = drop_in.shapes("resnet50", 224)
    assert len(set(map(str, found))) == len(found) == 23
    assert [s for s in found if s.image] == found[:1]
    assert str(found[0]) == "3->64 7x7/2 224x224"
    assert (found[-1].conv()(found[-1].input(1))).shape == (1, 512, 7, 7)


def test_drop_ins_are_the_layers_they_stand_for():
    for shape in drop_in.shapes("resnet50", 32)[:3]:
        calls = drop_in.convolution_calls(shape, 2, 10, 16)
        wanted = calls["torch contiguous"]()
        for name, call in calls.items():
            y = call()
            y = y.values() if isinstance(y, drop_in.fs.SpikeTensor) else y
            assert float((y - wanted).norm() / wanted.norm()) < 0.02, name


@pytest.mark.parametrize("argument", ["--batch=2", "--only=stem", "--drop-in --batch=0"])
def test_drop_ins_refuse_bad_arguments_before_any_work(argument, capsys):
    with pytest.raises(SystemExit):
        layers.main(argument.split())
    assert argument.split()[-1].partition("=")[0] in capsys.readouterr().err


def test_drop_ins_say_if_nothing_is_left_to_time(tmp_path, capsys):
    with pytest.raises(SystemExit):
        layers.main(["--drop-in", "--only", "no such row", "--out", str(tmp_path / "x.json")])
    assert "no row has that" in capsys.readouterr().out
