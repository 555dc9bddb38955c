"""Risk: rate coding mixes up scales where spikes are moved, above all several channels into one."""

import pytest
import torch
from moved.networks import GRAPHS, Drawn, images

from fskernel.rate.network import RateNetwork
from fskernel.rate.thresholds import channel_scales, shuffled_alike
from fskernel.rate.trains import KernelRateNetwork

SIZE = (12, 18)


@pytest.mark.parametrize("make", [RateNetwork, KernelRateNetwork])
@pytest.mark.parametrize("name", ["shuffled channels", "subpixels", "signed"])
def test_balanced_networks_become_the_float_network_with_time(name, make):
    graph, x = GRAPHS[name](), images(name, 3, SIZE)
    options = {"weight_bits": 16} if make is KernelRateNetwork else {}
    net = make(graph, x, normalise="balanced", **options)
    ann = graph.forward(x.double())
    spread = float((ann - ann.mean(0)).norm())
    errors = [float((net.run(x, T).logits[-1] - ann).norm()) / spread for T in (8, 64, 512)]
    assert errors[0] > 3 * errors[1] > 6 * errors[2] and errors[2] < 0.1


def test_a_mean_and_a_spread_of_it_become_the_float_ones_with_time():
    """A constant image and no gate: nothing varies but the sums of spikes."""
    g = Drawn(seed=3)
    x = g.conv("stem", "input", 6)
    one = g.conv("one", g.mean_pool("mean", x, "adaptive", (2, 1)), 4, (2, 1))
    y = g.concat("both", [x, g.expand("spread", one, x)], [(1, 0, 4), (0, 3, 3)])
    graph = g.read_out(g.conv("last", g.move("large", y, "upsample", 1, 2), 5))
    image = torch.rand(2, 3, 1, 1).expand(2, 3, 4, 5).contiguous()
    net = RateNetwork(graph, image, normalise="balanced")
    ann = graph.forward(image.double())
    error = (net.run(image, 2000).logits[-1] - ann).norm() / ann.norm()
    assert float(error) < 0.01


def capped(seed=0):
    """Channels in turn of a layer with a ceiling and of one without, then pixels of one map."""
    g = Drawn(seed=seed)
    a, b = g.conv("a", "input", 4, ceiling=0.4), g.conv("b", "input", 4)
    x = g.concat("turns", [a, b], [(i, c, 1) for c in range(4) for i in (0, 1)])
    x = g.move("apart", g.move("once", x, "unshuffle", 2), "shuffle", 4)
    return g.read_out(g.conv("last", x, 3))


@pytest.mark.parametrize("normalise", ["percentile", "max", "robust", "balanced"])
def test_channels_that_become_pixels_of_one_have_one_scale(normalise):
    x = images("pyramid", 2, (8, 8))
    net = RateNetwork(capped(), x, normalise=normalise)
    # Of 8 channels of a square of pixels 16 become one: the first 4 channels, and the others.
    for first in (0, 2):
        found = {
            float(scale)
            for name in ("a", "b")
            for scale in torch.as_tensor(net.scales[name], dtype=torch.float64).expand(4)[
                first : first + 2
            ]
        }
        assert len(found) == 1 and 0 < found.pop() <= 0.4
    graph = capped()
    units = channel_scales(graph, net.scales)
    pixels = units["once"].view(2, 16)
    assert bool((pixels == pixels[:, :1]).all()) and torch.equal(units["apart"], pixels[:, 0])


def test_the_scale_of_all_is_their_largest_below_every_ceiling():
    graph = GRAPHS["subpixels"]()
    own = torch.arange(1.0, 19.0, dtype=torch.float64)
    given = {"stem": own, "middle": 3.0, "joined": torch.ones(5)}
    found = shuffled_alike(graph, given)
    assert found["stem"].tolist() == [9.0] * 9 + [18.0] * 9
    assert found["middle"] == 3.0 and isinstance(found["middle"], float)
    graph["stem"].ceiling = 12.5
    assert shuffled_alike(graph, given)["stem"].tolist() == [9.0] * 9 + [12.5] * 9
    graph = GRAPHS["pyramid"]()
    assert shuffled_alike(graph, given) is given, "without a shuffle nothing is changed"


def test_shuffles_in_a_row_tie_what_meets_in_any_of_them():
    g = Drawn()
    x = g.conv("a", "input", 16)
    x = g.move("first", x, "shuffle", 2)
    x = g.move("second", x, "shuffle", 2)
    graph = g.read_out(g.conv("last", x, 3))
    own = torch.rand(16, dtype=torch.float64)
    found = shuffled_alike(graph, {"a": own, "last": 1.0})
    assert torch.equal(found["a"], own.max().expand(16))
