"""Risk: numbers that a module moves about end up elsewhere in the graph, in some order of moves."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import event, given, settings
from hypothesis import strategies as st
from torch import nn
from traced import same_function

import fskernel as fs
from fskernel.tracing.trace import trace

MOST = 4000  # numbers of a map, beyond which a chain moves on no more


def divisor(n, wish):
    """One of n's divisors."""
    divisors = [d for d in range(1, n + 1) if n % d == 0]
    return divisors[wish % len(divisors)]


def in_turn(x, a, b):
    n, c, h, w = x.shape
    groups = divisor(c, a)
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


def halves(x, a, b):
    parts = x.chunk(2 + a % 2, 1)
    return torch.cat([*parts[1:], parts[0]][: 1 + b % 3], 1)


def shuffled(x, a, b):
    if x.shape[1] % 4 == 0:
        return F.pixel_shuffle(x, 2)
    rows, columns = (n // 2 * 2 for n in x.shape[2:])
    return F.pixel_unshuffle(x[:, :, :rows, :columns], 2) if rows and columns else x


def interleaved(x, a, b):
    return torch.stack([x, x.flip(1)], 2).flatten(1, 2)


MOVES = [
    in_turn,
    halves,
    shuffled,
    interleaved,
    lambda x, a, b: x[:, a % x.shape[1] :: 1 + b % 3],
    lambda x, a, b: x[:, :, a % x.shape[2] :: 1 + b % 2],
    lambda x, a, b: x[..., b % x.shape[3] : x.shape[3] - (a % 2 if x.shape[3] > b + 2 else 0)],
    lambda x, a, b: F.pad(x, (a % 3, b % 2, b % 3, a % 2)),
    lambda x, a, b: F.pad(x, (0, 0, 0, 0, a % 2, b % 3)),
    lambda x, a, b: F.interpolate(x, scale_factor=(1 + a % 2, 1 + b % 3)),
    lambda x, a, b: x.permute(0, 2, 3, 1)[..., a % x.shape[1] :].permute(0, 3, 1, 2),
    lambda x, a, b: x.flatten(2).view(x.shape),
    lambda x, a, b: x.repeat_interleave(1 + a % 2, 1 + b % 3),
    lambda x, a, b: x[:, [i * (2 * a + 1) % x.shape[1] for i in range(1 + b)]],
    lambda x, a, b: x.roll(a, 1),
]


def moved(x, chain):
    for move, a, b in chain:
        if x.shape[1:].numel() <= MOST:
            x = MOVES[move](x, a, b)
    return x


READERS = ["conv", "grouped", "transposed", "pool", "average", "flatten", "sum", "norm", "nothing"]


class Chained(nn.Module):
    """conv, ReLU, moves, one of the layers that read maps, ReLU, average, linear."""

    def __init__(self, chain, reader, size):
        super().__init__()
        torch.manual_seed(9)
        self.a, self.chain, self.reader = nn.Conv2d(2, 6, 2), chain, reader
        with torch.no_grad():
            _, c, h, w = moved(F.relu(self.a(torch.zeros(2, 2, *size))), chain).shape
        kernel = (min(2, h), min(3, w))
        self.read = {
            "conv": lambda: nn.Conv2d(c, 5, kernel, padding=(0, kernel[1] // 2)),
            "grouped": lambda: nn.Conv2d(c, c, kernel, groups=c),
            "transposed": lambda: nn.ConvTranspose2d(c, 3, (2, 3), (2, 1), (1, 0)),
            "pool": lambda: nn.MaxPool2d(kernel, padding=(kernel[0] // 2, 0)),
            "average": lambda: nn.AvgPool2d(kernel, 1),
            "norm": lambda: nn.BatchNorm2d(c).eval(),
        }.get(reader, nn.Identity)()
        with torch.no_grad():
            features = self.eval().features(torch.zeros(2, 2, *size)).shape[1]
        self.fc = nn.Linear(features, 3)

    def features(self, x):
        x = F.relu(self.a(x))
        y = moved(x, self.chain)
        if self.reader == "flatten":
            return y.flatten(1)
        if self.reader == "sum":
            y = y + self.read(y) * 0.5
        return F.relu(self.read(y)).mean((2, 3))

    def forward(self, x):
        return self.fc(self.features(x))


chains = st.lists(
    st.tuples(st.integers(0, len(MOVES) - 1), st.integers(0, 5), st.integers(0, 5)),
    min_size=1,
    max_size=5,
)


@settings(max_examples=25)
@given(chains, st.sampled_from(READERS), st.sampled_from([(7, 6), (5, 9)]))
def test_chains_of_moves_are_the_same_function_or_refused(chain, reader, size):
    module = Chained(chain, reader, size)
    try:
        same_function(module, torch.randn(2, 2, *size))
        event("converted")
    except fs.ConversionError as error:
        assert error.node and error.reason and error.cure
        assert "gives what the module gives nowhere" not in error.reason
        event("refused")


@pytest.mark.parametrize("move", range(len(MOVES)))
@pytest.mark.parametrize("reader", ["conv", "flatten"])
def test_every_move_by_itself_converts(move, reader):
    same_function(Chained([(move, 1, 2)], reader, (7, 7)), torch.randn(2, 2, 7, 7))


TRANSPOSED = [
    dict(kernel_size=2, stride=2),
    dict(kernel_size=3, stride=2, padding=1, output_padding=1),
    dict(kernel_size=4, stride=2, padding=1, bias=False),
    dict(kernel_size=(3, 5), stride=(1, 2), padding=(0, 2), output_padding=(0, 1)),
    dict(kernel_size=3, stride=3, padding=2, dilation=2),
    dict(kernel_size=(2, 3), stride=1, dilation=(1, 3), groups=2),
    dict(kernel_size=1, stride=2, groups=3),
    dict(kernel_size=5, stride=3, output_padding=2, groups=6),
]


@pytest.mark.parametrize("arguments", TRANSPOSED)
def test_transposed_convolutions(arguments):
    module = nn.Sequential(
        nn.Conv2d(2, 6, 2), nn.ReLU(), nn.ConvTranspose2d(6, 12, **arguments), nn.BatchNorm2d(12),
        nn.ReLU(), nn.Conv2d(12, 4, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 3),
    ).eval()  # fmt: skip
    module[3].running_mean.normal_(), module[3].running_var.uniform_(0.5, 2)
    for size in ((6, 4), (5, 8)):
        same_function(module, torch.randn(2, 2, *size))
        module.float()


def test_transposed_sequences():
    for stride, padding in itertools.product((1, 2, 3), (0, 2)):
        module = nn.Sequential(
            nn.Conv1d(2, 6, 2), nn.ReLU(), nn.ConvTranspose1d(6, 5, 5, stride, padding), nn.ReLU(),
            nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(5, 3),
        ).eval()  # fmt: skip
        same_function(module, torch.randn(2, 2, 8))


@pytest.mark.parametrize(
    "mix",
    [
        lambda x: x.flip(0),
        lambda x: torch.cat([x[1:], x[:1]]),
        lambda x: x.roll(1, 0),
        lambda x: x.view(-1, 12, *x.shape[2:]).repeat_interleave(2, 0)[:, :6],
    ],
)
def test_images_of_a_batch_stay_apart(mix):
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.fc = nn.Conv2d(2, 6, 2), nn.Conv2d(6, 6, 1), nn.Linear(6, 3)

        def forward(self, x):
            return self.fc(F.relu(self.b(mix(F.relu(self.a(x))))).mean((2, 3)))

    with pytest.raises(
        fs.ConversionError, match="in a way that no layer has|images|is not"
    ) as error:
        trace(Mixed(), (2, 2, 6, 5))
    assert "gives what the module gives nowhere" not in error.value.reason
