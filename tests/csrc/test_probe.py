"""Risk: a card that differs from the model is not noticed, or one that breaks costs all rows."""

import functools
import json
import re
import shutil
import subprocess
import sys

import pytest
from probing import CONVOLUTIONS, MAKEFILE, SHAPES, host, make, rows, run

from bench.emulated import build
from bench.gpu_model import tiles
from bench.on_gpu.summary import assumptions


@functools.cache
def fake():
    """The program with a card that is the model, less one fault."""
    questions = sorted(build.ROOT.glob("csrc/cuda/probe/questions/*.cpp"))
    names = ["main", "model_machine", *(path.stem for path in questions)]
    objects = [f"build/probe_tests/host/{name}.o" for name in names]
    host()
    reads = ("csrc/cuda/kernel/*", "csrc/cuda/probe/*", "csrc/cuda/probe/*/*", "csrc/simt/*")
    return build.build("fake_probe", ["tests/probe/fake_card.cpp", *objects], reads=reads)


def asked(folder, *options, fault=None, code=0):
    """The rows of a run on the fake card."""
    done = run(fake(), "--out", folder, *options, fault=fault)
    assert done.returncode == code, done.stdout + done.stderr
    return rows(folder)


def test_the_session_on_a_gpu_counts_what_the_probe_says(golden):
    """What was not asked is not counted as true."""
    answers = list(rows(golden).values())
    assert {row["holds"] for row in answers} == {"yes", "not run"}
    rates = sum(row["name"].startswith("rate/") for row in answers)
    wanted = f"{len(answers) - rates} of {len(answers)} assumptions hold, {rates} were not answered"
    assert assumptions(answers) == wanted


# ---- the questions notice


def test_a_card_like_the_model_gets_yes_everywhere(tmp_path):
    found = asked(tmp_path)
    expected = {"im2col/small,unpatched": "no"}  # the model has no such fault
    assert {n: r["holds"] for n, r in found.items()} == {n: expected.get(n, "yes") for n in found}
    assert len(list((tmp_path / "golden").iterdir())) == sum(
        not n.startswith("rate") for n in found
    )
    done = json.loads((tmp_path / "probe.json").read_text())
    assert done["device"]["name"] == "NVIDIA H100" and done["device"]["driver"] == 13000


WGMMA = ("wgmma/", "swizzle/", "window/")
FAULTS = {  # fault -> questions that must say no, and what some must say
    "mma: two sums exchanged": ("fragments/mma+ldmatrix",),
    "ldmatrix: two lanes exchanged": ("fragments/mma+ldmatrix",),
    "stmatrix: not transposed": ("fragments/stmatrix.trans",),
    "ldmatrix: not transposed": ("fragments/ldmatrix.trans",),
    "wgmma: signs exchanged": WGMMA,
    "wgmma: unsigned": WGMMA,
    "wgmma: sums not kept": ("wgmma/",),
    "wgmma: A's halves exchanged": ("wgmma/registers",),
    "wgmma: saturates": ("wgmma/",),
    "wgmma: rows 8 apart exchanged": WGMMA,
    "wgmma: columns exchanged": WGMMA,
    "wgmma: last column of 256 lost": ("wgmma/shared,n=256", "wgmma/registers,n=256"),
    "swizzle: none": ("wgmma/", "swizzle/"),
    "swizzle: from the operand on": tuple(f"swizzle/{w},any-row" for w in (128, 64, 32)),
    "swizzle: base without effect": tuple(f"swizzle/{w},base-set" for w in (128, 64, 32)),
    "swizzle: base added": ("swizzle/128,base-set", "swizzle/64,base-set"),
    "window: offsets exchanged": ("window/",),
    "window: at least 128": ("window/lbo=16",),
    "im2col: rows end with the image": ("im2col/", "cluster/im2col"),
    "im2col: rows begin in the image": ("im2col/", "cluster/im2col"),
    "im2col: no strides": tuple(f"im2col/{n}" for n in CONVOLUTIONS if "stride" in n),
    "im2col: no offsets": ("im2col/", "cluster/im2col"),
    "im2col: offsets exchanged": ("im2col/", "cluster/im2col"),
    "im2col: not swizzled": tuple(
        f"im2col/{n}" for n in (*(f"swizzle={w}" for w in (32, 64, 128)), "ragged", "small")
    )
    + ("cluster/im2col",),
    "im2col: no zeros": ("im2col/", "cluster/im2col"),
    "multicast: only the first block": ("cluster/multicast", "cluster/im2col"),
    "box: begins in the image": ("box/swizzle",),
    "box: not swizzled": ("box/swizzle=32", "box/swizzle=64"),
    "store: beyond the matrix": ("box/store",),
    "store: in front of the matrix": ("box/store",),
    "bulk: 16 bytes lost": ("cluster/bulk", "cluster/multicast"),
    "remote: its own": ("cluster/remote",),
}
# Where a fault cannot be seen: nothing is padded, there is one tap.
BLIND = {
    "im2col: rows end with the image": ("im2col/1x1",),
    "im2col: rows begin in the image": ("im2col/1x1", "im2col/3x3,no-padding"),
    "im2col: no offsets": ("im2col/1x1",),
    "im2col: offsets exchanged": ("im2col/1x1",),
}
SAID = {
    "ldmatrix: not transposed": "not transposed in 1 of 1",
    "swizzle: from the operand on": "pattern from the operand on in 32 of 32",
    "swizzle: base without effect": "base without effect in 32 of 32",
    "swizzle: base added": "address bits and base in 32 of 32",
    "window: offsets exchanged": "LBO and SBO exchanged in 6 of 6",
    "window: at least 128": "depth fixed at 128 bytes in 6 of 6",
    "im2col: not swizzled": "not swizzled in 27 of 27",
    "box: not swizzled": "not swizzled in 4 of 4",
    "remote: its own": "its own in 1 of 1",
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_card_is_noticed_by_its_questions_alone(tmp_path, fault):
    found = asked(tmp_path, fault=fault)
    found.pop("im2col/small,unpatched")
    wrong = {n for n, r in found.items() if r["holds"] == "no"}
    expected = {
        n for n in found if n.startswith(FAULTS[fault]) and not n.startswith(BLIND.get(fault, "-"))
    }
    assert wrong == expected
    assert all(found[n]["detail"] for n in wrong)
    if fault in SAID:
        assert SAID[fault] in {found[n]["seen"] for n in wrong}


@pytest.mark.parametrize(
    "fault, holds, seen",
    [
        ("im2col: small maps fault", "yes", "CUDA: an illegal instruction was encountered"),
        ("im2col: small maps are wrong", "yes", "as assumed in 0 of 18"),
        ("driver 13.2", "yes", "as assumed, 18 cases"),
        (None, "no", "as assumed, 18 cases"),
    ],
)
def test_the_map_of_a_small_tensor_may_be_wrong_on_old_drivers(tmp_path, fault, holds, seen):
    found = asked(tmp_path, "--only", "im2col/small", "--only", "box", fault=fault)
    row = found["im2col/small,unpatched"]
    assert (row["holds"], row["seen"]) == (holds, seen)
    assert all(r["holds"] == "yes" for n, r in found.items() if n != row["name"])


def test_rates_are_compared_with_15_percent(tmp_path):
    found = asked(tmp_path / "fast", "--only", "rate", fault="fast")
    assert {r["holds"] for r in found.values()} == {"no"}
    assert found["rate/memory-copy"]["seen"] == "6.00 TB/s"
    assert found["rate/l2-multicast"]["seen"].startswith("1.00 times; 60.0 B")
    found = asked(tmp_path / "200", "--only", "rate", fault="H200")
    assert {r["holds"] for r in found.values()} == {"yes"}
    found = asked(tmp_path / "other", "--only", "rate/memory", fault="not a H100", code=1)
    assert found["rate/memory-copy"]["detail"] == "nothing is assumed of NVIDIA A100"


# ---- the guards


@pytest.mark.parametrize(
    "fault, why",
    [
        ("dies", "not run: signal 11 (Segmentation fault)"),
        ("says nothing", "not run: no answer within 1 s"),
        ("cannot", "not run: CUDA: out of memory"),
        ("is poisoned", "not run: CUDA: an illegal memory access was encountered"),
    ],
)
def test_what_breaks_costs_one_row(tmp_path, fault, why):
    only = [w for n in ("fragments", "cluster/bulk", "box/store") for w in ("--only", n)]
    found = asked(tmp_path, "--each", "1", *only, fault=fault, code=1)
    assert {n: r["holds"] for n, r in found.items()} == {
        "fragments/mma+ldmatrix": "yes",
        "fragments/ldmatrix.trans": "not run",
        "fragments/stmatrix.trans": "not run",
        "box/store": "yes",
        "cluster/bulk": "yes",
    }
    assert found["fragments/stmatrix.trans"]["seen"] == why


def test_an_older_card_is_asked_what_it_knows(tmp_path):
    found = asked(tmp_path, fault="sm_80", code=1)
    ran = {n for n, r in found.items() if r["seen"] != "not run: needs sm_90"}
    assert ran == {
        *("fragments/mma+ldmatrix", "fragments/ldmatrix.trans", "rate/mma.sync-int8"),
        *("rate/l2-loads", "rate/shared-loads", "rate/memory-copy", "rate/clock,light"),
    }


def test_the_whole_has_a_limit(tmp_path):
    found = asked(tmp_path, "--seconds", "1.5", fault="says nothing", code=1)
    assert found["fragments/mma+ldmatrix"]["holds"] == "yes"
    assert {r["seen"] for n, r in found.items() if n != "fragments/mma+ldmatrix"} == {
        "not run: the time for all was over"
    }


@pytest.mark.parametrize("option", [[], ["--here"]])
def test_without_a_card_it_says_so_and_lists_everything(tmp_path, option):
    found = asked(tmp_path, *option, fault="absent", code=1)
    assert {r["seen"] for r in found.values()} == {"not run: no GPU"}
    assert all(r["assumed"] for r in found.values())
    done = run(fake(), fault="absent")
    assert "probe: there is no GPU: no driver" in done.stdout
    assert "this program was built without CUDA" in run(host()).stdout


def test_the_table_fits_a_terminal(tmp_path):
    done = run(fake(), fault="wgmma: unsigned")
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert re.search(r"^\d+ hold, \d+ do not, 0 were not run", done.stdout, re.M)


@pytest.mark.parametrize(
    "options, why",
    [
        (["--what"], "unknown option --what"),
        (["--only", "nothing"], "no question begins so"),
        (["--seconds", "x"], "is no number of seconds"),
        (["--out"], "--out wants a value"),
        (["--out", "/dev/null/x"], "--out: /dev/null"),
    ],
)
def test_wrong_usage_ends_with_2(options, why):
    done = run(host(), *options)
    assert done.returncode == 2 and why in done.stderr and "usage:" in done.stderr


def test_list_names_every_question(golden):
    done = run(host(), "--list")
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(rows(golden))


# ---- what nvcc makes of it


@pytest.mark.slow
def test_nvcc_compiles_it_without_a_warning_and_the_products_are_there():
    if not shutil.which("nvcc"):
        pytest.skip("needs nvcc")
    program, said = make("probe")
    assert "C75" not in said and "warning" not in said.lower()
    for report in program.parent.glob("*.ptxas.txt"):
        assert not re.search(r"C75\d\d|serializ|warning", report.read_text()), report
    try:
        tool = tiles.cuobjdump()
    except RuntimeError as error:
        pytest.skip(str(error))
    code = subprocess.run(
        [tool, "-sass", "-arch", "sm_90a", program], capture_output=True, text=True
    )
    found = re.findall(r"IGMMA\.64x(\d+)x32\.(\w\w\.\w\w)", code.stdout)
    for n in SHAPES:
        for types in ("S8.S8", "S8.U8", "U8.S8", "U8.U8"):
            assert found.count((str(n), types)) >= 2, (n, types)  # from memory, from registers
    for n in (64, 128, 192, 208, 224, 240, 256):
        assert found.count((str(n), "S8.U8")) >= 8  # a loop of four, and what is peeled off it
    for name in (
        *("UTMALDG.4D.IM2COL.MULTICAST", "UTMALDG.4D.IM2COL", "UTMALDG.4D", "UTMASTG.2D"),
        *("UBLKCP.S.G.MULTICAST", "UBLKCP.S.G", "STSM.16.MT88.4", "LDSM.16.MT88.4"),
    ):
        assert re.search(rf"{re.escape(name)}[ ;]", code.stdout), name
    assert not re.search(r"\b(LDL|STL)\b", code.stdout)


def test_neither_torch_nor_the_drivers_library_and_no_assembly_in_kernels():
    text = (build.ROOT / MAKEFILE).read_text()
    assert "-lcuda" not in text
    files = [p for p in (build.ROOT / "csrc/cuda/probe").rglob("*") if p.is_file()]
    assert len(files) > 20
    for path in files:
        text = path.read_text()
        assert not re.search(r"#include <torch|#include <ATen", text), path
        if path.suffix in (".cu", ".cuh"):  # kernels keep to the names of gpu.h and hopper.h
            assert not re.search(r"\basm\b|threadIdx|blockIdx|__sync|__shared__", text), path


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
