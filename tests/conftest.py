"""Shared by all tests: the hypothesis profiles, one thread, and the report of covered ISAs."""

import os

import pytest
import torch
from hypothesis import HealthCheck, settings

pytest_plugins = ["isa_coverage"]

settings.register_profile(
    "ci",
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.register_profile("night", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("FSKERNEL_HYPOTHESIS", "ci"))


@pytest.fixture(autouse=True)
def one_thread_and_seed():
    """Tests run side by side, one thread each, and start from the same random numbers."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(1)
