"""Risk: what cannot be converted is refused late or without a name, or checking changes a build."""

import copy
from collections import OrderedDict

import pytest
import torch
from networks import images, same_everywhere, settle
from torch import nn
from traced import distance

import fskernel as fs
from fskernel import reference
from fskernel.models import cifar_resnet8


def test_a_structure_that_depends_on_the_size_refuses_other_sizes(tmp_path):
    module = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Conv2d(4, 5, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3),
    ).eval()  # fmt: skip
    x = torch.randn(2, 3, 8, 6)
    net = fs.convert(module, x)
    net.save(tmp_path / "net")
    for known in (net, fs.load(tmp_path / "net"), copy.deepcopy(net)):
        assert torch.equal(known(x), net(x)) and known.fixed_size == (8, 6)
        for use in (known.__call__, known.run, known.count_spikes, known.execute):
            with pytest.raises(ValueError, match="8x8 pixels.*made for 8x6"):
                use(torch.randn(1, 3, 8, 8))
    with pytest.raises(ValueError, match="8x8 pixels.*made for 8x6"):
        fs.convert(module, [x, torch.randn(1, 3, 8, 8)])
    with pytest.raises(ValueError, match="8x8 pixels.*made for 8x6"):
        fs.RateNetwork(net.graph, x).run(torch.randn(1, 3, 8, 8), T=3)
    assert fs.convert(settle(cifar_resnet8(), images(1, 32)), images(1, 32)).fixed_size is None


def test_maps_of_other_widths_are_broadcast():
    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.fc = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 1, 1), nn.Linear(4, 2)

        def forward(self, x):
            return self.fc(torch.relu(self.a(x) + torch.relu(self.b(x))).mean((2, 3)))

    assert distance(Wide()) < 0.01


X = torch.rand(2, 3, 32, 32)


def small():
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(3, 4, 3), relu=nn.ReLU(), conv2=nn.Conv2d(4, 5, 3), again=nn.ReLU(),
            pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), fc=nn.Linear(5, 2),
        )
    )  # fmt: skip


@pytest.mark.parametrize(
    "kwargs,error,message",
    [
        (dict(calibration=X, K=0), ValueError, "K=0"),
        (dict(calibration=X, K=16), ValueError, "K=16"),
        (dict(calibration=X, K=8.0), TypeError, "K=8.0"),
        (dict(calibration=X, K=True), TypeError, "K"),
        (dict(), ValueError, "calibration"),
        (dict(alpha="percentile:99.9"), ValueError, "calibration"),
        (dict(calibration=X, alpha="percentile:0"), ValueError, "percentile"),
        (dict(calibration=X, alpha="percentile:x"), ValueError, "percentile"),
        (dict(calibration=X, alpha="mean"), ValueError, "mean"),
        (dict(alpha=0.0), ValueError, "alpha=0.0"),
        (dict(alpha=-1), ValueError, "alpha=-1"),
        (dict(alpha=float("nan")), ValueError, "nan"),
        (dict(alpha=float("inf")), ValueError, "inf"),
        (dict(alpha=[1.0]), TypeError, "alpha"),
        (dict(alpha={"conv1": 2.0}), ValueError, "default"),
        (dict(alpha={"conv9": 2.0, "default": 1.0}), ValueError, "conv9"),
        (dict(alpha={"conv1": 0.0, "default": 1.0}), ValueError, "alpha=0.0"),
        (dict(calibration=X, rounding="up"), ValueError, "up"),
        (dict(calibration=X, weight_bits=12), ValueError, "weight_bits=12"),
        (dict(neuron="snn"), ValueError, "snn"),
        (dict(alpha=6.0, input_range=-1.0), ValueError, "input_range"),
        (dict(calibration=torch.zeros(0, 3, 32, 32)), ValueError, "empty"),
        (dict(calibration=[]), ValueError, "empty"),
        (
            dict(calibration=torch.zeros(3, 32, 32)),
            ValueError,
            "reads .N, C, H, W.; a single image needs .unsqueeze",
        ),
        (dict(calibration=torch.zeros(1, 4, 32, 32)), ValueError, "4 channels"),
        (dict(calibration=torch.zeros(1, 3, 32, 32, dtype=torch.uint8)), TypeError, "uint8"),
        (dict(calibration=torch.full((1, 3, 32, 32), float("nan"))), ValueError, "NaN"),
        (dict(calibration=7), TypeError, "int"),
        (dict(calibration=[X, torch.rand(1, 2, 32, 32)]), ValueError, "cannot read"),
        (dict(calibration=X * 1e-40), ValueError, "normalise"),
        (dict(alpha=6.0, input_range="1"), ValueError, "input_range"),
    ],
)
def test_bad_arguments_are_refused(kwargs, error, message):
    with pytest.raises(error, match=message):
        fs.convert(small(), **kwargs)


class Once:
    """Batches of which only the first may be asked for."""

    def __init__(self, first):
        self.first = first

    def __iter__(self):
        yield self.first
        raise AssertionError("the images were gone through")


class Hidden(nn.Module):
    """A hidden layer behind a global pool; a linear bottleneck that is pooled; a concatenation."""

    def __init__(self, how):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.hidden, self.fc, self.how = nn.Linear(4, 6), nn.Linear(6, 3), how
        self.wide = nn.Linear(4 * 40 * 40, 6)

    def forward(self, x):
        y = torch.relu(self.a(x))
        if self.how == "signed":
            y = self.b(y)
        if self.how == "pool":
            y = torch.relu(self.b(nn.functional.avg_pool2d(y, 7, 1)))
        if self.how == "padded":
            y = torch.relu(self.c(nn.functional.avg_pool2d(self.b(y), 3, 1, 1)))
        if self.how == "of sums":
            y = torch.relu(self.c(nn.functional.avg_pool2d(self.b(y), 17)))
        if self.how == "of images":
            y = torch.relu(self.a(nn.functional.avg_pool2d(x, 17)))
        if self.how == "broadcast":
            y = torch.relu(self.b(y) + torch.relu(self.c(y.mean((2, 3), keepdim=True))))
        y = y if self.how == "small" else y[:, :, ::2, ::2]
        return self.fc(torch.relu(self.hidden(y.mean((2, 3)))))


@pytest.mark.parametrize(
    "how,kwargs,why",
    [
        ("fine", dict(K={"conv1": 3, "default": 4}), "K names a layer 'conv1'.*did you mean"),
        ("fine", dict(K={"a": 3}), "K names no value for 1 layer.*default"),
        ("fine", dict(K=4, alpha={"a": 3.0, "x": 1.0, "default": "max"}), "names a layer 'x'"),
        ("fine", dict(K=4, alpha={"a": 3.0}), "alpha names no value for 1 layer"),
        ("fine", dict(input_size=(3,)), r"input_size=\(3,\).*N, C, H, W"),
        ("fine", dict(input_size=(1, 3, 40, 40, 2)), "no shape of images"),
        ("fine", dict(input_size=(1, 3, 40, 0)), "input_size"),
        ("fine", dict(input_range=0), "input_range"),
    ],
)
def test_what_no_range_can_help_is_refused_before_images_are_gone_through(how, kwargs, why):
    with pytest.raises(ValueError, match=why):
        fs.convert(Hidden(how).eval(), Once(torch.rand(2, 3, 40, 40)), **kwargs)


@pytest.mark.parametrize(
    "how,kwargs",
    [
        ("hidden", dict(K=8)),
        ("pool", dict(K={"a": 10, "default": 2})),
        ("padded", dict(K=5, bottleneck="spiking")),
        ("of sums", dict(K=5)),
        ("of images", dict(K=6)),
        ("broadcast", dict(K=7)),
    ],
)
def test_windows_whose_sums_need_more_bits_are_averaged_in_rounds(how, kwargs):
    """Once refused: sums beyond 16 bits, padding of words with an offset, one pixel for all."""
    x = torch.rand(2, 3, 40, 40)
    same_everywhere(fs.convert(Hidden(how).eval(), x, **kwargs), x[:1], reference.literal)


def test_what_is_refused_before_is_what_would_be_refused_after():
    """The same conversions with ranges: they raise where `Builder.check` did, or not at all."""
    from fskernel.calibration.ranges import measure
    from fskernel.conversion.builder import Builder
    from fskernel.conversion.choices import Choices
    from fskernel.tracing.trace import trace

    x = torch.rand(2, 3, 40, 40)
    for how in ("hidden", "pool", "padded", "of sums", "of images", "small", "signed"):
        graph = trace(Hidden(how).eval(), tuple(x.shape))
        for K in (1, 3, 8, 11):
            for bottleneck in ("graded", "spiking"):
                asked = {"default": K}, "max", "nearest", 8, bottleneck, None
                given = graph, Choices(*asked, ranges=measure(graph, x))
                raised = []
                for use in (lambda b: b.check(True), lambda b: b.build()):
                    try:
                        use(Builder(*given))
                        raised.append(None)
                    except fs.ConversionError as error:
                        raised.append(str(error))
                assert raised[0] == raised[1]


def test_building_changes_nothing_and_gives_the_same_again():
    from fskernel.calibration.ranges import measure
    from fskernel.conversion.builder import Builder
    from fskernel.conversion.choices import Choices
    from fskernel.tracing.trace import trace

    x = torch.rand(2, 3, 40, 40)
    graph = trace(Hidden("hidden").eval(), tuple(x.shape))
    asked = {"default": 6}, "max", "nearest", 8, "spiking", None
    builder = Builder(graph, Choices(*asked, ranges=measure(graph, x)))
    first, second = builder.build(), builder.build()
    assert [step.spec() for step in first] == [step.spec() for step in second]
    for one, other in zip(first, second, strict=True):
        tensors = one.state_dict(), other.state_dict()
        assert tensors[0].keys() == tensors[1].keys()
        assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])


def test_more_synapses_than_the_bound_allows_are_refused_before():
    module = nn.Sequential(
        nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 256 * 257, 2), nn.ReLU(),
        nn.Linear(2, 2),
    ).eval()  # fmt: skip
    with torch.no_grad():
        module[3].weight.fill_(1e-3)
    with pytest.raises(fs.ConversionError, match="'3'.*131584 synapses.*Use a smaller K"):
        fs.convert(module, Once(torch.rand(1, 3, 256, 257)), K=15)
    fs.convert(module, torch.rand(1, 3, 256, 257), K=5)


def test_signed_values_need_images_and_say_so_before_any_work():
    with pytest.raises(fs.ConversionError, match="'b'.*signed.*calibration"):
        fs.convert(Hidden("padded").eval(), alpha=1.0, K=2, input_size=(1, 3, 9, 9))


def test_images_are_asked_for_once_and_one_batch_at_a_time():
    asked = []

    def batches():
        for i in range(4):
            asked.append(i)
            yield torch.rand(3, 3, 12, 12)

    fs.convert(Hidden("small").eval(), batches(), K=4)
    assert asked == [0, 1, 2, 3]
