"""Risk: the sanitisers of `make sanitize-python` are not there, or do not see a fault."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

import fskernel as fs
from fskernel import _C

pytestmark = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "__asan_init"), reason="make sanitize-python runs these"
)

# Memory that is said to be longer than it is: numpy believes it, so torch does, so the operator.
TOO_SHORT = """
import numpy as np, torch
from fskernel import ops
ops.set_isa({isa!r})
short = np.ones({floats}, np.float32)
x = np.lib.stride_tricks.as_strided(short, (1, 4, 8, 32), (4096, 1024, 128, 4))
ops.encode(torch.from_numpy(x), 1.0)
print("not seen")
"""
# Doubles at odd addresses, which plain C++ reads; float32 are loaded by intrinsics or copied.
MISPLACED = """
import numpy as np, torch
from fskernel import ops
ops.set_isa("portable")
x = np.frombuffer(bytearray(513), np.float64, 64, offset={offset}).reshape(1, 1, 8, 8)
ops.encode(torch.from_numpy(x), 1.0)
print("not seen")
"""


def run(code):
    here = Path(__file__).parent  # not above it, where the usual library is
    return subprocess.run([sys.executable, "-c", code], cwd=here, capture_output=True, text=True)


def test_the_library_under_test_is_the_one_with_sanitisers():
    assert "/build/asan/" in _C.__file__ and "-fsanitize=" in fs.build_info()["flags"]


@pytest.mark.parametrize("isa", _C.supported_isas())
def test_a_read_beyond_memory_is_reported(isa):
    done = run(TOO_SHORT.format(isa=isa, floats=1020))
    assert done.returncode and "ERROR: AddressSanitizer" in done.stderr, done.stderr
    assert "csrc/cpu/" in done.stderr  # lines of our sources


def test_undefined_behaviour_is_reported():
    done = run(MISPLACED.format(offset=1))
    assert done.returncode and "misaligned address" in done.stderr, done.stderr


def test_nothing_is_reported_where_nothing_is_wrong():
    fits = run(TOO_SHORT.format(isa="portable", floats=1024) + MISPLACED.format(offset=0))
    assert fits.stdout == "not seen\n" * 2 and fits.returncode == 0, fits.stderr
