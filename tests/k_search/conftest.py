"""What the tests of the search ask for: the small network, and options of a quick search."""

import pytest
from searched import MODULE, QUICK


@pytest.fixture(scope="module")
def module():
    return MODULE


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Options of searches that need not measure what another test has measured."""
    return {"folder": tmp_path_factory.mktemp("evaluations"), "K_range": (2, 9), **QUICK}
