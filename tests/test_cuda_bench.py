"""The GPU's bench scripts as far as they run without one: shapes, roofline, the session."""

import json
import time

import pytest
import torch
from cuda_backends import emulator
from harness import QUICK, composed

import fskernel as fs
from bench import emulated, gpu, roofline, shapes, tiles
from bench import run as bench_run
from bench.config import UserError
from fskernel.synapses import Geometry, Synapses


@pytest.fixture(scope="module")
def resnet50():
    return roofline.resnet50(10)


def test_the_layer_list_is_resnet50s(resnet50):
    assert len(resnet50) == 53
    assert sum(s.macs for s in resnet50) == 4_087_136_256  # torchvision's 4.089 G less the readout
    first, last = resnet50[0], resnet50[-1]
    assert (first.kernel, first.channels, first.out) == ((7, 7), 3, (112, 112))
    assert first.signed and 8 < first.x_bits <= 16
    assert (last.outputs, last.out, last.x_bits, last.residual_bits) == (2048, (7, 7), 10, 10)
    merged = roofline.layers(resnet50)
    assert sum(layer.calls * len(layer.groups) for layer in merged) == 53
    assert sum(len(layer.groups) == 2 for layer in merged) == 4, "the downsampling blocks"


def test_the_roofline_is_the_data_sheets(resnet50):
    h100 = roofline.GPUS["h100"]
    assert h100.int8_peak == pytest.approx(1979e12 / 2, rel=0.05)
    (layer,) = [m for m in roofline.layers(resnet50) if m.title() == "3x3 256->256 @14"]
    bound = roofline.roofline(layer, 128, h100)
    macs = 128 * 14 * 14 * 256 * 256 * 9
    assert bound["compute"] == pytest.approx(2 * macs / h100.int8_peak), "two byte planes"
    moved = 128 * 14 * 14 * 256 * (2 + 2) + 256 * 256 * 9
    assert bound["memory"] == pytest.approx(moved / 3.35e12)
    assert bound["fp16"] == pytest.approx(macs / h100.int8_peak * 2)


def test_the_maps_that_layers_leave_are_in_the_model(resnet50):
    dense = [s.layer for s in resnet50 if not s.x_kept]
    # Readers of the max-pool; the encoder leaves a map.
    assert dense == ["layer1.0.conv1", "layer1.0.conv3"]
    assert [roofline.map_bytes(s, 1) > 0 for s in resnet50] == [not s.x_kept for s in resnet50]
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
    chosen = roofline.choose(roofline.Layer("a", shape), 2, TILES, 4)
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


def test_a_session_keeps_what_is_finished_whatever_happens(tmp_path):
    session = gpu.Session(tmp_path, 1)
    session.attempt(
        "good", lambda: {"images_per_s": 5.0, "seconds": {"median": 0.2, "iqr": [0.1, 0.3]}}
    )
    session.attempt("bad", lambda: 1 / 0)
    session.end = time.monotonic() + 2
    session.attempt("late", lambda: pytest.fail("there is no time"), needs=5)
    kept = json.loads((tmp_path / "results.json").read_text())
    assert kept["bad"]["error"].startswith("ZeroDivisionError")
    assert "2 s were left" in kept["late"]["skipped"]
    page = (tmp_path / "summary.md").read_text()
    assert "| good | 5.0 images/s; 200.000 ms" in page and "ZeroDivisionError" in page
    assert "ZeroDivisionError" in (tmp_path / "errors.txt").read_text()
    found = gpu.run(["sh", "-c", "echo begun; sleep 60"], session, 1, "log.txt")
    assert found == {"exit": "ended after 1 s", "last_line": "begun", "log": "log.txt"}


def test_the_probe_dumps_golden_files_that_the_emulator_answers(tmp_path):
    session = gpu.Session(tmp_path, 1)
    found = gpu.probe(session, torch.device("cpu"))
    assert found["equal_to_the_emulator"] == dict.fromkeys(
        ("sums", "fragments_x4", "fragments_x2"), True
    )
    golden = {
        k: torch.tensor(v) for k, v in json.loads((tmp_path / "fragments.json").read_text()).items()
    }
    # The first product, from the fragments' definition: row g of x times column n of w.
    x = golden["x"].to(torch.int32).contiguous().view(torch.uint8).view(8, 4, 4, 4)  # g, t, i, byte
    w = golden["w"].to(torch.int32).contiguous().view(torch.int8).view(8, 4, 2, 4)
    rows = torch.zeros(16, 32, dtype=torch.int64)
    columns = torch.zeros(8, 32, dtype=torch.int64)
    for t in range(4):
        for i in range(4):
            rows[8 * (i % 2) : 8 * (i % 2) + 8, 16 * (i // 2) + 4 * t :][:, :4] = x[:, t, i].long()
        for i in range(2):
            columns[:, 16 * i + 4 * t :][:, :4] = w[:, t, i].long()
    product = rows @ columns.T
    sums = golden["sums"][0].view(8, 4, 4)  # g, t, i
    for i in range(4):
        wanted = product[8 * (i // 2) : 8 * (i // 2) + 8, i % 2 :: 2]
        assert torch.equal(sums[:, :, i], wanted)


def test_a_network_that_is_too_large_for_the_emulator_is_refused():
    net = fs.convert(fs.models.cifar_resnet8(), alpha=6.0, K=8)
    with pytest.raises(ValueError, match="million multiply-accumulates"):
        emulated.compare(net, torch.zeros(2000, 3, 32, 32))


def test_gpu_and_roofline_say_what_is_missing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gpu, "cuda_fault", lambda _: "there is no GPU")
    assert gpu.main(["--out", str(tmp_path / "none")]) == 2
    assert "error: there is no GPU" in capsys.readouterr().err and not (tmp_path / "none").exists()
    monkeypatch.setattr(tiles, "cuobjdump", lambda: "true")
    with pytest.raises(RuntimeError, match="holds no kernels for sm_90: build it with"):
        tiles.tiles(tmp_path, 90)


def test_the_harness_takes_a_gpu_if_there_is_one_and_says_why_not(monkeypatch):
    cfg = composed("backend=auto")
    monkeypatch.setattr(bench_run, "cuda_fault", lambda place: None)
    assert bench_run.choose_device(cfg) == "cuda:0"
    assert bench_run.choose_device(composed("backend=cuda", "backend.device=cuda:1")) == "cuda:1"
    monkeypatch.setattr(bench_run, "cuda_fault", lambda place: f"there is no {place}")
    assert bench_run.choose_device(cfg) == "cpu"
    with pytest.raises(UserError, match="backend.device=cuda: there is no cuda:0"):
        bench_run.choose_device(composed("backend=cuda"))
    assert bench_run.choose_device(composed("backend=emulated")) == "emulated"


def test_the_harness_shows_the_emulated_kernels(tmp_path):
    cfg = composed(*QUICK, "backend=emulated", "K=10")
    values = bench_run.run(cfg, tmp_path)
    rows = values["fs.emulated"]
    assert all(row["equal"] for row in rows) and len(rows) == 9
    assert {row["kernel"].split("/")[0] for row in rows} == {"encode", "conv", "readout"}
    assert json.loads((tmp_path / "results.json").read_text())["complete"] is True


@pytest.mark.slow
def test_the_rehearsal_on_a_cpu_measures_everything_without_an_error(tmp_path):
    arguments = ["--device", "cpu", "--model", "cifar_resnet8", "--minutes", "2"]
    assert gpu.main([*arguments, "--out", str(tmp_path)]) == 0
    kept = json.loads((tmp_path / "results.json").read_text())
    assert {"facts", "fragment probe", "peaks", "fs K=8 batch 1", "dense fp32 batch 1"} <= set(kept)
    assert not (tmp_path / "errors.txt").exists()
    assert "of the measured int8 peak" in (tmp_path / "summary.md").read_text()
