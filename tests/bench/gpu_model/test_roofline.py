"""Risk: the roofline or the tile model counts other work than the kernels do."""

import json

import pytest
import torch
from cuda_backends import emulator

import fskernel as fs
from bench import roofline
from bench.gpu_model import model, tables, tiles
from bench.gpu_model.gpus import GPUS
from bench.measures import shapes
from fskernel.codes.geometry import Geometry
from fskernel.network.synapses import Synapses


@pytest.fixture(scope="module")
def resnet50():
    return tables.resnet50(10)


def test_the_layer_list_is_resnet50s(resnet50):
    assert len(resnet50) == 53
    assert sum(s.macs for s in resnet50) == 4_087_136_256  # torchvision's 4.089 G less the readout
    first, last = resnet50[0], resnet50[-1]
    assert (first.kernel, first.channels, first.out) == ((7, 7), 3, (112, 112))
    assert first.signed and 8 < first.x_bits <= 16
    assert (last.outputs, last.out, last.x_bits, last.residual_bits) == (2048, (7, 7), 10, 10)
    merged = model.layers(resnet50)
    assert sum(layer.calls * len(layer.groups) for layer in merged) == 53
    assert sum(len(layer.groups) == 2 for layer in merged) == 4, "the downsampling blocks"


def test_the_roofline_is_the_data_sheets(resnet50):
    h100 = GPUS["h100"]
    assert h100.int8_peak == pytest.approx(1979e12 / 2, rel=0.05)
    (layer,) = [m for m in model.layers(resnet50) if m.title() == "3x3 256->256 @14"]
    bound = model.roofline(layer, 128, h100)
    macs = 128 * 14 * 14 * 256 * 256 * 9
    assert bound["compute"] == pytest.approx(2 * macs / h100.int8_peak), "two byte planes"
    moved = 128 * 14 * 14 * 256 * (2 + 2) + 256 * 256 * 9
    assert bound["memory"] == pytest.approx(moved / 3.35e12)
    assert bound["fp16"] == pytest.approx(macs / h100.int8_peak * 2)


def test_the_maps_that_layers_leave_are_in_the_model(resnet50):
    dense = [s.layer for s in resnet50 if not s.x_kept]
    # Readers of the max-pool; the encoder leaves a map.
    assert dense == ["layer1.0.conv1", "layer1.0.conv3"]
    assert [model.map_bytes(s, 1) > 0 for s in resnet50] == [not s.x_kept for s in resnet50]
    halos = {s.layer: s.halo_bytes for s in resnet50 if s.halo_bytes}
    assert len(halos) == 16, "of the 3x3 layers' inputs"
    assert halos["layer2.0.conv1"] == 2 * (58 * 58 - 56 * 56) * 128, "two planes"


# Tiles as configs.inc has them, with counts nobody measured; enough for the choice.
TILES = tiles.rows()


@pytest.mark.parametrize(
    "channels, outputs, kernel, K, groups",
    [
        (64, 64, 1, 8, 1),
        (64, 200, 3, 8, 1),
        (128, 128, 1, 10, 1),
        (32, 256, 3, 8, 2),
        (3, 40, 3, 8, 1),
    ],
)
def test_the_tile_model_takes_the_kernel_that_the_library_takes(
    channels, outputs, kernel, K, groups
):
    pad = kernel // 2
    geometry = Geometry((kernel, kernel), padding=(pad, pad, pad, pad))
    top = 2**K - 1
    dtype = torch.uint8 if K <= 8 else torch.int16
    given, shape = [], []
    for i in range(groups):
        weight = torch.ones(outputs, channels, kernel, kernel, dtype=torch.int8)
        group = Synapses(weight, torch.ones(outputs), geometry, x_min=0, x_max=top)
        given.append((torch.zeros(2, 9, 8, channels, dtype=dtype), group))
        shape.append(
            shapes.ConvShape(
                "a",
                i,
                (9, 8),
                (9, 8),
                channels,
                outputs,
                (kernel, kernel),
                (1, 1),
                1,
                False,
                K,
                1,
                0,
                8,
            )
        )
    on = emulator()
    on.conv(given, torch.zeros(outputs), K=8)
    chosen = model.choose(model.Layer("a", shape), 2, TILES, 4)
    assert on.last == f"conv/{chosen.name}"


@pytest.mark.slow
def test_the_roofline_script_prints_and_writes(tmp_path, capsys):
    if fs.ops.cuda_state() is None:
        pytest.skip("built without CUDA kernels")
    assert roofline.main(["--K", "8", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert (tmp_path / "roofline.md").read_text() in printed
    found = json.loads((tmp_path / "roofline.json").read_text())
    (table,) = found["tables"]
    assert table["roofline_us"] < table["model_us"], "a model below its bound is wrong"
    assert all(t["imma"] and t["ldsm"] and t["ldgsts"] for t in found["tiles"])
    for row in table["rows"]:
        assert row["model_us"] is None or row["model_us"] > row["roofline_us"], row["layer"]


def test_the_roofline_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(tiles, "cuobjdump", lambda: "true")
    with pytest.raises(RuntimeError, match="holds no kernels for sm_90: build it with"):
        tiles.tiles(tmp_path, 90)
