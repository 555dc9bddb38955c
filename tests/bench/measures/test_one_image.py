"""Risk: a report's raster or errors of layers are those of other layers, steps or values."""

import pytest
import torch
from torch import nn

import fskernel as fs
from bench.measures import one_image
from fskernel.models import cifar_resnet8
from fskernel.tracing.trace import trace


@pytest.fixture(scope="module")
def shown():
    """A network with residual branches of two K, its ANN, an image, and what was seen inside."""
    torch.manual_seed(0)
    ann = cifar_resnet8(weights="cifar10").eval()
    x = torch.randn(1, 3, 32, 32)
    net = fs.convert(ann, x, K={"layer2.0.conv1": 3, "default": 5})
    return ann, net, x, *one_image.look(net.graph, net, x)


def test_the_raster_holds_the_spikes_at_their_steps(shown):
    _, net, x, inside, _ = shown
    stats = net.run(x, record="all")[1]
    assert [row["layer"] for row in inside["raster"]] == list(stats.spikes)
    assert inside["every"] == -(-stats.neuron_count // one_image.NEURONS) > 1
    last = 0
    for row in inside["raster"]:
        train = stats.recorded[row["layer"]].spikes()[:, 0].flatten(1)[:, :: inside["every"]]
        words = torch.tensor(row["words"])
        bits = torch.stack([words >> (row["K"] - 1 - t) & 1 for t in range(row["K"])])
        assert torch.equal(bits.bool(), train), row["layer"]
        assert row["first"] == last + 1  # the layers of this network are one chain
        last += row["K"]
    assert {row["K"] for row in inside["raster"]} == {3, 5}
    assert net.latency_steps == last + 5


def fires(rows, every):
    """What a raster draws: of each layer, time steps and neurons, in order."""
    found = {}
    for row in rows:
        words = torch.tensor(row["words"])
        steps = [words >> (row["K"] - 1 - t) & 1 for t in range(row["K"])]
        at, neuron = torch.stack(steps).nonzero().unbind(1)
        found[row["layer"]] = torch.stack([at + row["first"], neuron * every], dim=1)
    return found


class TwoWays(nn.Module):
    """A branch of two layers and one of one, side by side, behind a max-pool."""

    def __init__(self):
        super().__init__()
        self.stem, self.long = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 4, 3, padding=1)
        self.longer, self.short = nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(5, 3, 1)
        self.last, self.head = nn.Conv2d(9, 7, 3), nn.Linear(7 * 2 * 3, 2)

    def forward(self, x):
        x = nn.functional.max_pool2d(self.stem(x).relu(), 2)
        x = torch.cat([self.longer(self.long(x).relu()).relu(), self.short(x).relu()], dim=1)
        return self.head(self.last(x).relu().flatten(1))


def two_ways():
    torch.manual_seed(2)
    ann, x = TwoWays().eval(), torch.randn(3, 3, 8, 10)
    return fs.convert(ann, x, K={"long": 3, "longer": 6, "default": 4}), x[:1]


@pytest.mark.parametrize("network", ["residual", "two ways"])
def test_the_raster_is_that_of_a_run_in_time(shown, network):
    net, x = shown[1:3] if network == "residual" else two_ways()
    inside, _ = one_image.look(net.graph, net, x)
    run = fs.schedule(net, x)
    drawn = fires(inside["raster"], inside["every"])
    assert list(drawn) == list(run.spikes)
    for layer, found in drawn.items():
        step, _, neuron = run.spikes[layer].unbind(1)
        kept = neuron % inside["every"] == 0
        assert torch.equal(found, torch.stack([step, neuron], dim=1)[kept]), layer
    assert all(map(len, drawn.values()))  # none is silent


def test_the_graph_is_that_of_the_steps(shown):
    _, net, _, inside, _ = shown
    assert inside["graph"] == {step.name: step.sources for step in net.steps}
    assert any(len(sources) > 1 for sources in inside["graph"].values())


def test_errors_are_those_of_values_against_the_float_layers(shown):
    ann, net, x, _, errors = shown
    assert list(errors) == [step.name for step in net.steps if step.affine]
    relu = nn.functional.relu(ann.bn1(ann.conv1(x))).detach()
    values = net.run(x, record="conv1")[1].recorded["conv1"].values()
    assert errors["conv1"] == pytest.approx(float((values - relu).norm() / relu.norm()), rel=1e-3)
    logits = ann(x).detach()
    error = float((net(x) - logits).norm() / logits.norm())
    assert errors[net.steps[-1].name] == pytest.approx(error, rel=1e-3)
    assert all(0 < error < 1 for error in errors.values())


@pytest.mark.parametrize("options", [{}, {"bottleneck": "spiking"}])
def test_layers_without_a_relu_and_channels_of_their_own_are_decoded(options):
    torch.manual_seed(1)
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 6, 3), nn.ReLU6()]
    ann = nn.Sequential(*layers, nn.Flatten(), nn.Linear(6 * 4, 2)).eval()
    x = torch.randn(4, 3, 6, 6)
    graph = trace(ann, images=x)
    net = fs.convert(graph, x, K=12, weight_bits=16, correct="bias", **options)
    inside, errors = one_image.look(graph, net, x[:1])
    assert len(errors) == 4 and max(errors.values()) < 0.02
    assert len(inside["raster"]) == (3 if options else 2) and inside["every"] == 1


def test_a_silent_layer_has_no_error():
    ann = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 4, 2)).eval()
    nn.init.constant_(ann[0].weight, 0.0)
    nn.init.constant_(ann[0].bias, -1.0)
    x = torch.rand(2, 1, 2, 2)
    net = fs.convert(ann, x, K=4, alpha=1.0)
    assert one_image.look(net.graph, net, x[:1])[1]["0"] is None
