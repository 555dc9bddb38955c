"""Risk: what is printed of a network or a run fills screens, says a wrong number, or costs work."""

import copy
import pickle
import re

import pytest
import torch
from networks import Bottlenecks, Branches, Ragged, images, settle
from torch import nn

import fskernel as fs
from fskernel import text
from fskernel.models import cifar_resnet8

LINES, STATS_LINES, COLUMNS = 24, 20, 80


def one_screen(printed, lines):
    found = str(printed).splitlines()
    assert len(found) <= lines and max(map(len, found)) <= COLUMNS, "\n".join(found)
    assert len(repr(printed).splitlines()) == 1 and len(repr(printed)) <= COLUMNS
    return str(printed)


def fact(printed, label):
    """What stands behind a label, its lines joined."""
    lines = str(printed).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"  {label:<12}"))
    found = [lines[start][14:]]
    for line in lines[start + 1 :]:
        if not line.startswith(" " * 14):
            break
        found.append(line.strip())
    return " ".join(found)


def converted(module, size=24, **options):
    x = images(2, size)
    return fs.convert(settle(module, x), x, **options)


@pytest.fixture(scope="module")
def net():
    return converted(cifar_resnet8(), 32, K=6)


@pytest.mark.parametrize(
    "module, options",
    [
        (Ragged, {"K": {"default": 9, "a": 3}}),
        (Branches, {"neuron": "paper"}),
        (Bottlenecks, {"bottleneck": "graded", "weight_bits": "auto"}),
        (Bottlenecks, {"bottleneck": "spiking", "alpha": 4.0}),
        (Ragged, {"alpha": "logits", "K": 2}),
    ],
)
@pytest.mark.filterwarnings("ignore:the paper's setting")
def test_every_network_fits_a_screen_converted_and_loaded(module, options, tmp_path):
    net = converted(module(), **options)
    net.save(tmp_path / "net.safetensors")
    for one in (net, fs.load(tmp_path / "net.safetensors")):
        printed = one_screen(one, LINES)
        assert f"{one.count_neurons(24, 24):,} for an image of 24x24" in printed
        assert fact(one, "time steps") == (
            f"depth {one.depth}: latency {one.latency_steps:,}, interval {one.interval_steps}"
        )
        assert text.memory(one.activation_bytes(24, 24)) in fact(one, "memory")
        kinds = {str(w.dtype)[6:]: 0 for s in one.steps if s.affine for w in s.weights}
        for step in one.steps:
            for weight in step.weights if step.affine else ():
                kinds[str(weight.dtype)[6:]] += weight.numel()
        for kind, n in kinds.items():
            assert f"{text.count(n)} {kind}" in fact(one, "weights")
        notes = sum(bool(row.notes) for row in one.report().rows)
        assert notes == 0 or fact(one, "notes").startswith(f"{notes} layer")


def test_the_numbers_are_those_of_the_network(net):
    assert str(net).splitlines()[0] == "FSNetwork: K=6, on cpu"
    assert fact(net, "layers") == "7 of neurons, input, readout; 3 residual joins"
    assert fact(net, "folded") == "9 BatchNorm2d, 7 ReLU, 2 Conv2d, 1 AdaptiveAvgPool2d"
    assert fact(net, "images").startswith("3 channels, of any size, calibrated on 32x32; pixels in")
    alphas = [step.info["alpha"] for step in net.steps if step.spiking]
    assert fact(net, "alpha") == f"{min(alphas):.4g} to {max(alphas):.4g}; rounding nearest"


def test_few_numbers_of_time_steps_are_counted_and_many_are_a_range():
    x = images(2, 16)
    layers = [m for _ in range(6) for m in (nn.Conv2d(3, 3, 1), nn.ReLU())]
    module = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)).eval()
    few = fs.convert(module, x, K={"default": 4, "4": 6, "6": 6})
    assert str(few).splitlines()[0] == "FSNetwork: K=4 (4x) and 6 (2x), on cpu"
    many = fs.convert(module, x, K={"0": 3, "2": 4, "4": 5, "6": 6, "8": 7, "10": 7})
    assert str(many).splitlines()[0] == "FSNetwork: K=3 to 7, on cpu"


def test_functions_are_counted_by_their_names():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4, 2)

        def forward(self, x):
            x = torch.relu(self.b(torch.relu(self.a(x))))
            return self.fc(x.mean((2, 3)))

    assert fact(converted(Functional()), "folded") == "2 relu"


def test_printing_runs_and_lays_out_nothing(net):
    cold = pickle.loads(pickle.dumps(net))
    one_screen(cold, LINES)
    assert cold._plan is None and "net.activation_bytes" in fact(cold, "memory")
    changed = copy.deepcopy(net)
    plan = changed._plan
    changed.steps[1].bias.add_(1)
    assert "net.activation_bytes" in fact(changed, "memory")
    assert changed._plan is plan


def test_a_network_of_unknown_image_size_says_what_would_tell():
    net = converted(Ragged())
    bare = fs.FSNetwork(list(net.steps))
    assert "count_neurons" in fact(bare, "neurons") and bare.graph is None
    assert fact(bare, "images").startswith("3 channels, of any size; pixels in")
    number = sum(len(row.fused) for row in net.report().rows)
    assert fact(bare, "folded") == f"{number} modules into {len(net.steps)}"


def test_images_of_a_strangers_file_may_be_too_large_to_lay_out():
    module = nn.Sequential(
        nn.Conv2d(3, 64, 1), nn.ReLU(), nn.MaxPool2d(64), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(64, 2),
    )  # fmt: skip
    net = converted(module, 64)
    huge = fs.FSNetwork(list(net.steps), input_size=(1, 3, 8192, 8192))
    huge.plan()
    assert fact(huge, "memory").endswith("images of 8192x8192 are too large")
    one_screen(huge, LINES)


def test_names_of_a_strangers_file_neither_clear_the_screen_nor_fill_it(tmp_path):
    net = converted(cifar_resnet8(), 32)
    name = "\x1b[2J\n\r" + 300 * "layer." + "\u202eend"
    for step in net.steps:
        step.sources = [s + name for s in step.sources]
        step.name += name
        step.fused = tuple(f + name for f in step.fused)
        if step.affine:
            step.info["notes"] = [f"note {name}"] * 3
    net.search = {"criterion": name, "budget": name, "images": name}
    hostile = fs.FSNetwork(list(net.steps), input_size=net.input_size)
    hostile.search = net.search
    hostile.save(tmp_path / "net.safetensors")
    loaded = fs.load(tmp_path / "net.safetensors")
    _, stats = loaded.run(images(1, 32))
    for printed in (one_screen(loaded, LINES), one_screen(stats, STATS_LINES)):
        assert all(c.isprintable() or c == "\n" for c in printed)


def test_inside_other_modules_it_is_one_line(net):
    outer = nn.Sequential(net, nn.Softmax(1))
    assert repr(outer).splitlines()[1] == f"  (0): {net!r}"
    assert len(repr(outer).splitlines()) == 4
    assert len(repr(net.graph)) < COLUMNS and len(repr(net.report())) < COLUMNS
    assert "tensor(" not in repr(net.graph.layers)


def test_a_run_fits_a_screen_and_adds_up(net):
    x = images(3, 32, 5)
    _, stats = net.run(x, record=["conv1"])
    one_screen(stats, STATS_LINES)
    spikes = stats.total_spikes()
    counts = [text.count(n) for n in (float(spikes.double().mean()), *spikes.aminmax())]
    per = float(spikes.double().mean()) / net.count_neurons(32, 32)
    assert fact(stats, "spikes") == (
        f"{counts[0]} an image ({counts[1]} to {counts[2]}); {per:.3g} a neuron"
    )
    assert fact(stats, "neurons") == "73,728 in 7 layers"
    assert fact(stats, "graded MACs").startswith(f"{stats.graded_macs['conv1']:,} an image")
    assert fact(stats, "recorded") == "1 of the layers"
    table = [line.split() for line in str(stats).split("costliest layers")[1].splitlines()[1:]]
    work = {n: float(c.double().mean()) for n, c in stats.sops.items()}
    work["conv1"] += stats.graded_macs["conv1"]
    assert [row[0] for row in table] == sorted(work, key=work.get, reverse=True)[:8]
    assert text.count(work[table[0][0]]) == table[0][1]
    assert text.count(float(stats.spikes[table[0][0]].double().mean())) in table[0]


def test_a_run_of_one_image_has_no_range_and_one_of_none_is_said(net):
    _, stats = net.run(images(1, 32))
    assert re.fullmatch(r"[\d,]+ an image; [\d.]+ a neuron", fact(stats, "spikes"))
    assert str(stats).startswith("RunStats of 1 image of 32x32")
    for empty in (net.run(images(0, 32))[1], fs.RunStats()):
        assert str(empty) == "RunStats of no image" and repr(empty) == "RunStats(images=0)"


def test_clipped_pixels_are_told(net):
    with pytest.warns(fs.ClippingWarning):
        _, stats = copy.deepcopy(net).run(100 * images(2, 32))
    share = float(fact(stats, "pixels").split()[0])
    assert share == pytest.approx(100 * stats.input_saturated, rel=0.05) and share > 50


def test_the_former_name_of_images_warns():
    with pytest.warns(DeprecationWarning, match="is now images"):
        assert fs.RunStats(images=3).pictures == 3


@pytest.mark.parametrize(
    "write, value, written",
    [
        (text.count, 0, "0"),
        (text.count, 9_608_704, "9,608,704"),
        (text.count, 14_061_000, "14.06M"),
        (text.count, 999_999_999, "1000M"),
        (text.count, 4.09e9, "4.090G"),
        (text.count, 2**63 - 1, "9.223E"),
        (text.count, float("nan"), "-"),
        (text.memory, 1023, "1023 bytes"),
        (text.memory, 25_557_032, "24.4 MiB"),
        (text.percent, 0.0, "0"),
        (text.percent, 0.00123, "0.12"),
        (text.percent, 0.994, "99"),
        (text.percent, 0.999, "100"),
        (text.duration, 0.0, "0 us"),
        (text.duration, 0.00557, "5.57 ms"),
        (text.duration, 61.27, "61.3 s"),
        (text.shortened, "layer1.0.conv1", "layer1.0.conv1"),
        (text.shortened, "a" * 20 + "." * 20 + "conv1", "aaaaaaa............conv1"),
        (text.plain, "a\tb\x1b\u202e", r"a\tb\x1b\u202e"),
    ],
)
def test_numbers_and_names_are_written_as_people_read_them(write, value, written):
    assert write(value) == written


def test_columns_align_and_the_first_row_is_the_head():
    table = text.columns([("name", "n"), ("a", "1,000"), ("", "5")], right=[1])
    assert table == ["name      n", "a     1,000", "          5"]


def test_reports_hold_no_control_characters_of_a_file(net):
    net = copy.deepcopy(net)
    step = next(step for step in net.steps if step.spiking)
    step.info |= {"notes": ["\x1b[31mred"], "activation": "\x1b[2Jgone"}
    step.table = torch.zeros(1, 2, 32)
    for shown in (str(net.report()), str(net)):
        assert "\x1b" not in shown and "\\x1b" in shown
