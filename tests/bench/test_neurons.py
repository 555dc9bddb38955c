"""Risk: a fit that was interrupted starts again, or a better neuron is replaced by a worse one."""

import pytest

from bench import neurons


@pytest.fixture
def fits(monkeypatch):
    """Fits that take no time; what is fitted is recorded."""
    done = []

    def fitted(function, K, low, high, rounds, seed):
        done.append(K)
        rest = {"rms": seed / 8, "worst": 1.0, "spikes": 2.0, "rounds": rounds, "tried": rounds}
        return {"function": function, "K": K, "low": low, "high": high, "seed": seed, **rest}

    monkeypatch.setattr(neurons, "fitted", fitted)
    monkeypatch.setattr(neurons, "wanted", lambda: [("silu", 4, -8, 2), ("silu", 3, -8, 2)])
    return done


def run(out, *words):
    return neurons.main(["--out", str(out), *words])


def test_what_is_there_is_not_fitted_again_and_the_better_one_stays(fits, tmp_path):
    out = tmp_path / "neurons.json"
    assert run(out, "--rounds", "10", "--seed", "2") == 0 and fits == [4, 3]
    assert run(out, "--rounds", "10", "--seed", "1") == 0 and fits == [4, 3]
    assert run(out, "--rounds", "20", "--seed", "3") == 0 and fits == [4, 3, 4, 3]
    assert {entry["seed"] for entry in neurons.read(out).values()} == {2}
    assert run(out, "--rounds", "20", "--seed", "3") == 0 and fits == [4, 3, 4, 3]
    assert run(out, "--rounds", "30", "--seed", "1") == 0
    assert {entry["seed"] for entry in neurons.read(out).values()} == {1}


def test_the_table_of_the_docs_has_a_row_for_each_range(fits, tmp_path):
    out, page = tmp_path / "neurons.json", tmp_path / "page.md"
    page.write_text("Before\n<!-- neurons: begin -->\n<!-- neurons: end -->\nAfter\n")
    run(out, "--rounds", "10", "--seed", "2")
    assert run(out, "--docs", str(page)) == 0
    text = page.read_text()
    assert "| SiLU | -8 to 2 | 3, 4 | 0.25, 0.25 |" in text and text.endswith("After\n")


@pytest.mark.parametrize("words", [["--rounds", "0"], ["--seed", "-1"]])
def test_wrong_numbers_are_refused(words):
    with pytest.raises(SystemExit):
        neurons.arguments(words)
