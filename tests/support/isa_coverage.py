"""Pytest plugin: prints which instruction sets the run's convolutions covered, and fails a run of
the kernel tests that left out one which this processor supports.

Losing a fast path in silence is the worst regression a kernel library can have.
"""

from __future__ import annotations

import pytest

_covered: set[str] = set()
_kernel_tests_ran = False


def _ops():
    from fskernel.kernels import ops

    return ops


def pytest_runtest_logreport(report):
    global _kernel_tests_ran
    if report.when == "call" and "test_kernels.py" in report.nodeid and report.passed:
        _kernel_tests_ran = _kernel_tests_ran or "every_supported_isa" in report.nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    """A worker of pytest-xdist says at its end what it covered."""
    _covered.update(getattr(node, "workeroutput", {}).get("fskernel_covered", []))


def pytest_sessionfinish(session):
    try:
        covered = _ops().covered_isas()
        supported = _ops().supported_isas()
    except (ImportError, RuntimeError):  # not built: the tests themselves say so
        return
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["fskernel_covered"] = covered
        return
    _covered.update(covered)
    if _kernel_tests_ran and set(supported) - _covered:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter):
    try:
        supported, built = _ops().supported_isas(), _ops().built_isas()
    except (ImportError, RuntimeError):
        return
    if not _covered:
        return
    terminalreporter.write_line(f"instruction sets covered: {', '.join(sorted(_covered))}")
    absent = [isa for isa in built if isa not in supported]
    if absent:
        terminalreporter.write_line(f"built, not supported here: {', '.join(absent)}")
    missed = sorted(set(supported) - _covered)
    if missed and _kernel_tests_ran:
        terminalreporter.write_line(f"NOT COVERED although supported: {', '.join(missed)}")
