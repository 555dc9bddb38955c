"""Risk: `fskernel search` and `fidelity` measure something else than they say, or lose work."""

import json

import pytest
import torch

import fskernel as fs
from fskernel.cli import search as work

QUICK = ("--no-timing", "--max-evaluations", 4, "--min-K", 2, "--max-K", 6)


def ann():
    return fs.models.digits_cnn(weights="digits").eval()


def searched(pixels, labels, **options):
    batches = list(zip(pixels.split(16), labels.split(16), strict=True))
    return fs.search(ann(), batches, timing=False, max_evaluations=4, K_range=(2, 6), **options)


def test_the_search_is_that_of_python(call, digits, pixels, tmp_path):
    path = tmp_path / "net.safetensors"
    labels = torch.tensor([int(p.parent.name) for p in sorted(digits.glob("[0-9]/*.png"))])
    words = ("--images", digits, "--labelled", "--criterion", "logit_error", "--budget", "0.08")
    done = call("search", "digits_cnn", *words, *QUICK, "--alpha", "mse", "-o", path)
    result = searched(pixels, labels, budget=0.08, criterion="logit_error", alpha="mse")
    net = fs.load(path)
    assert net.search == json.loads(json.dumps(result.summary()))
    assert net.get_extra_state() == result.net.get_extra_state()
    assert result.table() in done.stdout and "24 of 24 images" in done.stdout
    assert net.preprocessing == fs.models.preprocessing("digits_cnn")
    assert len(list((tmp_path / "net.search").glob("*.json"))) == 1


def test_the_same_command_goes_on_after_ctrl_c(call, digits, tmp_path, monkeypatch):
    path, kept = tmp_path / "net.safetensors", tmp_path / "kept"
    words = ("search", "digits_cnn", "--images", digits, *QUICK, "-o", path, "--ledger", kept)
    measure, seen = fs.k_search.search.Evaluator.measure, []

    def interrupted(self, net):
        seen.append(net.K)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return measure(self, net)

    monkeypatch.setattr(fs.k_search.search.Evaluator, "measure", interrupted)
    done = call(*words, code=130)
    assert done.stderr.endswith(f"interrupted; the same command goes on from {kept}\n")
    assert not path.exists() and not done.stdout
    call(*words)
    assert seen[:3] == [6, 5, 4] and seen[3] == 4, "those measured before are not measured again"
    assert fs.load(path).search["budget"] == 0.01


def test_no_network_within_the_budget_is_a_sentence(call, digits, tmp_path):
    path = tmp_path / "net.safetensors"
    words = ("search", "digits_cnn", "--images", digits, *QUICK, "--criterion", "logit_error")
    done = call(*words, "--budget", 0, "-o", path, code=1)
    assert "no K of 2..6 keeps logit_error" in done.stderr and not path.exists()


@pytest.mark.parametrize(
    "words, said",
    [
        (("--criterion", "top1"), "--criterion top1 needs --labelled"),
        (("--min-K", 7), "is empty: give the smallest K first"),
        (("--budget", 2), "budget=2.0 is not a proportion"),
    ],
)
def test_what_makes_no_sense_is_refused(call, digits, tmp_path, monkeypatch, words, said):
    monkeypatch.setattr(work.files, "BATCH", 24)
    words = ("search", "digits_cnn", "--images", digits, *QUICK, *words)
    assert said in call(*words, "-o", tmp_path / "net.safetensors", code=2).stderr


def test_fidelity_is_that_of_python(call, digits, pixels):
    words = ("fidelity", "digits_cnn", "--images", digits, "-K", 4, "--on-count", 6, "--json")
    told = json.loads(call(*words).stdout)
    net = fs.convert(ann(), pixels.split(16), K=4)
    expected = fs.fidelity(net, pixels[::4])
    assert {name: told[name] for name in expected} == expected
    assert (told["K"], told["images"]) == (4, 6)
    text = call(*words[:-1]).stdout
    assert f"{expected['logit_error']:.4g}" in text and "6 of 24 images" in text
