"""Risk: a machine with a GPU and little else collects no test, because one file lacks a package."""

import subprocess
import sys

from harness import blocked

from bench import ROOT
from bench.on_gpu.external import gpu_files

ABSENT = (
    *("hydra", "omegaconf", "antlr4", "wandb", "PIL", "matplotlib", "skimage", "timm"),
    *("safetensors", "torchvision", "efficientnet_lite_pytorch", "pytest_benchmark", "xdist"),
    *("setuptools", "onnx", "tensorrt", "typer"),
)


def test_all_tests_for_a_gpu_are_collected_on_a_bare_machine(tmp_path):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--collect-only"]
    done = subprocess.run(
        [*command, "-m", "gpu or not gpu", "tests"],
        cwd=ROOT,
        env=blocked(tmp_path, *ABSENT),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "error" not in done.stdout.rpartition("\n\n")[2].lower()
    skipped = {line.split()[2].partition(":")[0] for line in done.stdout.splitlines()
               if line.startswith("SKIPPED")}  # fmt: skip
    collected = {line.partition("::")[0] for line in done.stdout.splitlines() if "::" in line}
    assert len(gpu_files()) == 5 and set(gpu_files()) <= collected - skipped
    for needless in (
        "tests/kernels/test_kernels.py",
        "tests/network/test_network.py",
        "tests/bench/on_gpu/test_cuda_bench.py",
    ):
        assert needless in collected, "what needs none of these packages is still there"
    assert "tests/bench/output/test_runs.py" in skipped, "and what does is named"
