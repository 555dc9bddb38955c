"""Risk: the ledger says that something was seen on hardware which was not."""

import json

import pytest

from bench import ROOT, gpu_ledger
from bench.errors import UserError
from bench.on_gpu import ledger

DOCUMENT = ROOT / "docs" / "gpu.md"
FACTS = {
    "rehearsal": False,
    "time": "2026-12-01T10:00:00",
    "gpu": {"name": "NVIDIA H200"},
    "nvidia_smi": {"driver_version": "580.95"},
    "versions": {"torch": "2.11.0+cu130"},
    "commit": "abc1234",
    "fault": None,
}
PASS, FAIL, SKIP = "passed", "failed", "skipped"


def outcomes(file, **tests):
    names = {f"tests/{file}.py::{name}": outcome for name, outcome in tests.items()}
    return {f"tests/{file}.py": {"outcomes": names}}


TESTS = {
    **outcomes(
        "kernels/test_cuda_direct", test_ragged_layers=PASS, test_ragged_steps_of_rate_coded=PASS
    ),
    **outcomes(
        "network/test_cuda_network",
        test_networks_on_a_gpu_equal=PASS,
        test_opcheck_on_a_gpu=FAIL,
        test_another_gpu_is_respected=SKIP,
    ),
}
ROWS = {
    "FS K=8, batch 128": {"images_per_s": 61234.5, "seconds": {}},
    "FS K=8 against fp16, interleaved, batch 128": {"ratio": 1.834, "ratio_interval": [1.82, 1.85]},
    "FS K=10 against fp16, interleaved, batch 128": {"ratio": 9.0, "error": "ended at its limit"},
}
FULL = {
    "facts": FACTS,
    "tests": TESTS,
    "rows": ROWS,
    "fragments": {"equal_to_the_emulator": {"sums": True, "fragments_x4": False}},
    "probe": {
        "rows": [
            {"name": "l2", "holds": "no"},
            {"name": "mma", "holds": "yes"},
            {"name": "late", "holds": "not run"},
        ]
    },
    "sanitizer": {"memcheck": {"exit": 0, "says": "ERROR SUMMARY: 0 errors"}},
}


def folder(tmp_path, values):
    (tmp_path / "results.json").write_text(json.dumps(values))
    return tmp_path


def seen(values, document=None):
    rows = ledger.claims(document or DOCUMENT.read_text())
    return {claim: cell for claim, cell, _ in ledger.updated(rows, values)}


def test_every_judge_has_one_claim_in_the_document():
    claims = [row[0] for row in ledger.claims(DOCUMENT.read_text())]
    for beginning in ledger.JUDGES:
        assert len([c for c in claims if c.startswith(beginning)]) == 1, beginning


def test_judges_name_tests_that_exist():
    for judge in ledger.JUDGES.values():
        for cell in getattr(judge, "__closure__", None) or ():
            for place in cell.cell_contents:
                file, _, test = place.partition("::")
                text = (ROOT / "tests" / file).read_text()
                assert f"def {test}" in text, place


def test_what_was_seen_is_told_with_card_driver_day_and_commit():
    found = seen(FULL)

    def cell(beginning):
        (text,) = [v for k, v in found.items() if k.startswith(beginning)]
        return text

    where = "NVIDIA H200, driver 580.95, torch 2.11.0+cu130, 2026-12-01, commit abc1234"
    assert cell("every kernel") == f"2 tests pass ({where})"
    silent = "network/test_cuda_maps.py did not run"
    assert cell("whole networks").startswith(f"in part: 1 tests pass; {silent}")
    assert cell("operators").startswith("NO: 1 of 1 tests fail")
    assert cell("the PTX").startswith("NO: fragments_x4 differ")
    assert cell("what the kernels").startswith(
        "NO: 1 of 3 assumptions hold, 1 do not, 1 were not answered; not l2"
    )
    assert cell("the launchers").startswith("memcheck clean (ERROR SUMMARY: 0 errors) (")
    speed = cell("speed")
    assert "FS K=8 against fp16, batch 128: 1.83 times [1.82, 1.85]" in speed
    assert "61,234 images/s" in speed and "K=10" not in speed, "a row that was cut is no figure"


def test_what_did_not_run_keeps_what_it_said():
    before = {row[0]: row[1] for row in ledger.claims(DOCUMENT.read_text())}
    silent = {
        "facts": FACTS,
        "tests": outcomes("network/test_cuda_maps", test_x=SKIP)
        | {"tests/a.py": {"skipped": "late"}},
        "rows": {"FS K=8, batch 128": {"skipped": "0 s were left"}},
        "probe": {"skipped": "there is no build/probe/probe"},
        "sanitizer": {"plain": {"exit": 0}, "racecheck": {"exit": None, "error": "cut"}},
        "fragments": {"error": "RuntimeError"},
    }
    assert seen(silent) == seen({"facts": FACTS}) == before


@pytest.mark.parametrize(
    "values, names",
    [
        ({"facts": {**FACTS, "rehearsal": True}}, "is a rehearsal"),
        ({"rows": ROWS}, "lacks the facts"),
        ({"facts": {"error": "ended at its limit"}}, "lacks the facts"),
        ({"facts": {**FACTS, "gpu": "unknown (RuntimeError)"}}, "its GPU is unknown"),
        ({"facts": {**FACTS, "fault": "there is no GPU"}}, "there is no GPU"),
        ([], "lacks the facts"),
    ],
)
def test_what_is_no_evidence_is_refused(tmp_path, values, names, capsys):
    with pytest.raises(UserError, match=names):
        ledger.read(folder(tmp_path, values))
    document = tmp_path / "gpu.md"
    document.write_text(DOCUMENT.read_text())
    with pytest.raises(SystemExit):
        gpu_ledger.main([str(tmp_path), "--write", "--document", str(document)])
    assert document.read_text() == DOCUMENT.read_text()


def test_the_document_is_written_between_its_marks_alone(tmp_path, capsys):
    document = tmp_path / "gpu.md"
    document.write_text(DOCUMENT.read_text())
    arguments = [str(folder(tmp_path, FULL)), "--document", str(document)]
    assert gpu_ledger.main(arguments) == 0
    assert "1.83 times" in capsys.readouterr().out
    assert document.read_text() == DOCUMENT.read_text(), "only printed"
    assert gpu_ledger.main([*arguments, "--write"]) == 0
    new, old = document.read_text(), DOCUMENT.read_text()
    begin, end = "<!-- gpu ledger: begin -->", "<!-- gpu ledger: end -->"
    assert new.partition(begin)[0] == old.partition(begin)[0]
    assert new.partition(end)[2] == old.partition(end)[2]
    assert "1.83 times" in new and len(ledger.claims(new)) == len(ledger.claims(old))
    (tmp_path / "results.json").write_text(json.dumps({"facts": FACTS}))
    assert gpu_ledger.main([*arguments, "--write"]) == 0
    assert document.read_text() == new, "a session that saw nothing takes nothing back"
    document.write_text("no table")
    with pytest.raises(SystemExit):
        gpu_ledger.main(arguments)
