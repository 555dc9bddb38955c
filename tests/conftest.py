"""Shared by all tests: the hypothesis profiles, one thread, packages that may be missing, and the
report of covered ISAs.
"""

import logging
import os

import pytest
import torch
from hypothesis import HealthCheck, settings

pytest_plugins = ["isa_coverage"]

# pytest listens to every log that keeps its messages to itself. Of this one torch makes up all
# messages of torch.export, with a traceback each, as soon as anybody listens.
logging.getLogger("torch.__trace").propagate = True

settings.register_profile(
    "ci",
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.register_profile("night", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("FSKERNEL_HYPOTHESIS", "ci"))


# A machine with a GPU and little else runs the tests for the GPU: a file that needs one of these
# counts there as skipped, with the name, and is no error that keeps all others from running.
OPTIONAL = (
    *("PIL", "hydra", "matplotlib", "omegaconf", "onnx", "safetensors", "skimage", "timm"),
    *("torchvision", "typer", "wandb"),
)


def pytest_configure(config):
    # Benchmarks are only run once, as tests, where the tests run in several processes.
    if config.pluginmanager.has_plugin("benchmark"):
        config.addinivalue_line(
            "filterwarnings", "ignore::pytest_benchmark.logger.PytestBenchmarkWarning"
        )


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    report = yield
    error = report.call.excinfo.value if report.failed else None
    while error is not None and not isinstance(error, ModuleNotFoundError):
        error = error.__cause__
    if error is not None and (error.name or "").partition(".")[0] in OPTIONAL:
        report.outcome, report.call = "skipped", None
        report.longrepr = (str(collector.path), 0, f"Skipped: {error.name} is not installed")
    return report


@pytest.fixture(autouse=True)
def one_thread_and_seed():
    """Tests run side by side, one thread each, and start from the same random numbers."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(1)
