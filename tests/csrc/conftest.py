"""What the tests of the probe ask for."""

import pytest
from probing import host, run


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    """Golden files of the host model."""
    folder = tmp_path_factory.mktemp("golden")
    done = run(host(), "--emulated", "--out", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder
