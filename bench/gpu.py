"""Everything that is left to do on the day there is a GPU: python bench/gpu.py, or make gpu.

Facts, tests, compute-sanitizer, the fragment probe, the benchmark; each stage in turn, into one
folder that holds what is finished at any moment. It ends by itself within --minutes and may be cut
earlier. `--device cpu --model cifar_resnet8` rehearses it without a GPU.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor, nn

import fskernel as fs
from bench import graphs, interrupt
from bench.errors import UserError
from bench.faults import in_one_sentence
from bench.folders import claim, own
from bench.shapes import convolutions
from bench.simulate import StepByStep
from fskernel import ops
from fskernel.device import cuda_fault
from fskernel.files import write_text
from fskernel.rate_kernels import FusedRateNetwork
from fskernel.synapses import Synapses

ROOT = Path(__file__).resolve().parent.parent
BATCHES = (1, 32, 128)


class Session:
    """Where results go, and how much time is left.

    Args:
        folder: of the results; made where it is missing, and claimed.
        minutes: after which no further measurement begins.

    Raises:
        UserError: the folder is of another session, or cannot be made.
    """

    def __init__(self, folder: Path, minutes: float):
        self.folder, self.end = folder, time.monotonic() + 60 * minutes
        self.values: dict[str, object] = {}
        self.lock = claim(folder, "--out")
        if (folder / "results.json").exists():
            raise UserError(
                f"--out: {folder} holds the results of another session: name another folder, or "
                "move that one away"
            )

    @property
    def left(self) -> float:
        """Seconds."""
        return self.end - time.monotonic()

    def keep(self, name: str, value: object) -> None:
        """Adds a result; it is on the disk when this returns."""
        self.values[name] = value
        for file, text in (
            ("results.json", json.dumps(self.values, indent=1, default=str) + "\n"),
            ("summary.md", summary(self.values)),
        ):
            write_text(self.folder / file, text)

    def attempt(self, name: str, work: Callable[[], object], needs: float = 5) -> None:
        """Runs one measurement, keeps its result or why there is none, and never raises."""
        if self.left < needs:
            return self.keep(name, {"skipped": f"{self.left:.0f} s were left, it wants {needs}"})
        print(f"gpu: {name} ({self.left:.0f} s left)", flush=True)
        try:
            return self.keep(name, work())
        except Exception as error:
            (self.folder / "errors.txt").open("a").write(f"{name}\n{traceback.format_exc()}\n")
            return self.keep(name, {"error": f"{type(error).__name__}: {error}".split("\n")[0]})


def run(command: list[str], session: Session, seconds: float, log: str) -> dict[str, object]:
    """A command with its output in a file of the folder; ended when its time is over."""
    path = session.folder / log
    limit = max(1.0, min(seconds, session.left - 5))
    with path.open("w") as out:
        try:
            done = subprocess.run(
                command, stdout=out, stderr=subprocess.STDOUT, cwd=ROOT, timeout=limit
            )
            code: int | str = done.returncode
        except subprocess.TimeoutExpired:
            code = f"ended after {limit:.0f} s"
    lines = path.read_text(errors="replace").strip().splitlines()
    return {"exit": code, "last_line": lines[-1] if lines else "", "log": log}


# ---- stages -------------------------------------------------------------------------------------


def facts(device: torch.device) -> dict[str, object]:
    """What it runs on."""
    found: dict[str, object] = {
        "time": datetime.now().isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "fskernel": dict(fs.build_info()),
        "cuda": ops.cuda_state(),
    }
    if device.type == "cuda":
        found["device"] = ops.cuda_device(device.index or 0)
        found["cudnn"] = torch.backends.cudnn.version()
        if tool := shutil.which("nvidia-smi"):
            query = "name,driver_version,clocks.max.sm,clocks.max.mem,power.limit,mig.mode.current"
            command = [tool, f"--query-gpu={query}", "--format=csv"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=30)
            found["nvidia_smi"] = done.stdout.splitlines()
    return found


def tests(session: Session) -> dict[str, object]:
    """The tests that need a GPU."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider"]
    return run([*command, "tests"], session, 240, "tests.txt")


def sanitizer(session: Session) -> dict[str, object]:
    """compute-sanitizer over one pass of a network, if it is there and works."""
    in_toolkit = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin"
    tool = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path=in_toolkit)
    if not tool:
        return {"skipped": "there is no compute-sanitizer on PATH or in the CUDA toolkit"}
    code = (
        "from bench.gpu import network; import torch; net = network('cifar_resnet8', 10).cuda(); "
        "net(torch.randn(2, 3, 32, 32, device='cuda')); torch.cuda.synchronize()"
    )
    found = {}
    for check in ("memcheck", "racecheck", "synccheck"):
        command = [tool, "--tool", check, "--error-exitcode", "9", sys.executable, "-c", code]
        found[check] = run(command, session, 45, f"sanitizer_{check}.txt")
    return found


def probe_inputs() -> tuple[Tensor, ...]:
    """Registers and memory for the probe: x [32, 4], w [32, 2], bytes [1024], rows [32]."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-(2**31), 2**31, (32, 4), generator=generator).to(torch.int32)
    w = torch.randint(-(2**31), 2**31, (32, 2), generator=generator).to(torch.int32)
    data = torch.randint(0, 256, (1024,), generator=generator).to(torch.uint8)
    rows = (torch.randperm(64, generator=generator)[:32] * 16).to(torch.int32)
    return x, w, data, rows


def emulated_probe() -> list[Tensor]:
    """What the emulator answers."""
    from bench.emulated import build

    answers = build().probe(*(t.numpy() for t in probe_inputs()))
    return [torch.from_numpy(a.view("int32")) for a in answers]


def probe(session: Session, device: torch.device) -> dict[str, object]:
    """Golden files of what a GPU's tensor-core instructions do, and whether the emulator agrees."""
    there = [t.to(device) for t in probe_inputs()]
    shapes = ((4, 32, 4), (32, 4), (32, 2))
    if device.type == "cuda":
        golden = [torch.zeros(shape, dtype=torch.int32, device=device) for shape in shapes]
        addresses = [t.data_ptr() for t in (*there, *golden)]
        ops._native().cuda_probe(*addresses, device.index or 0)
        golden = [t.cpu() for t in golden]
    else:
        golden = emulated_probe()
    names = ("x", "w", "bytes", "rows", "sums", "fragments_x4", "fragments_x2")
    values = dict(zip(names, [t.tolist() for t in (*probe_inputs(), *golden)], strict=True))
    write_text(session.folder / "fragments.json", json.dumps(values) + "\n")
    equal = [torch.equal(a, b) for a, b in zip(golden, emulated_probe(), strict=True)]
    return {"file": "fragments.json", "equal_to_the_emulator": dict(zip(names[4:], equal))}


# ---- benchmark ----------------------------------------------------------------------------------


def dense(model: str) -> nn.Module:
    """The dense network, random weights: times do not depend on them."""
    torch.manual_seed(0)
    if model.startswith("cifar"):
        return getattr(fs.models, model)().eval()
    import torchvision

    return getattr(torchvision.models, model)().eval()


@functools.cache
def network(model: str, K: int) -> fs.FSNetwork:
    """Its FS network, on the CPU."""
    return fs.convert(dense(model), alpha=6.0, K=K)


def size(model: str) -> int:
    """Rows and columns of a picture."""
    return 32 if model.startswith("cifar") else 224


def timed(call: Callable[[Tensor], object], x: Tensor, seconds: float = 1.0) -> dict[str, float]:
    """Median and quartiles of a call, in seconds; as a CUDA graph where x is on a GPU."""
    clock = time.perf_counter

    def once() -> float:
        begin = clock()
        call(x)
        if x.is_cuda:
            torch.cuda.synchronize(x.device)
        return clock() - begin

    if x.is_cuda:
        call = graphs.captured(call, x)
    first = min(once() for _ in range(3))
    rounds = max(5, min(200, math.ceil(seconds / max(first, 1e-6))))
    values = sorted(once() for _ in range(rounds))
    quarter = statistics.quantiles(values, n=4)
    return {"median": quarter[1], "iqr": [quarter[0], quarter[2]], "rounds": rounds}


def speed(call: Callable[[Tensor], object], x: Tensor) -> dict[str, object]:
    """Images/s of a call on a batch."""
    found = timed(call, x)
    return {"images_per_s": len(x) / found["median"], "seconds": found}


def work(model: str, K: int, batch: int) -> dict[str, float]:
    """Of one batch: int8 multiply-accumulates, every byte plane counted, and bytes at the least."""
    from bench import roofline

    shapes = convolutions(network(model, K), size(model), size(model))
    return {
        "int8_macs": batch * sum(s.macs * roofline.passes(s) for s in shapes),
        "memory_bytes": sum(
            layer.calls * roofline.traffic(layer, batch) for layer in roofline.layers(shapes)
        ),
    }


def peaks(device: torch.device) -> dict[str, float]:
    """What this device reaches: bytes/s of a copy, and multiply-accumulates/s of large products."""
    n = 2**29 if device.type == "cuda" else 2**24
    a = torch.empty(n, dtype=torch.uint8, device=device)
    b = torch.empty_like(a)
    found = {"memory_bytes": 2 * n / timed(lambda _: b.copy_(a), a[:1])["median"]}
    side = 8192 if device.type == "cuda" else 256
    x = torch.randint(-9, 9, (side, side), device=device).to(torch.int8)
    found["int8_macs"] = side**3 / timed(lambda t: torch._int_mm(t, x.t()), x)["median"]
    half = torch.randn(side, side, device=device, dtype=torch.float16)
    found["fp16_macs"] = side**3 / timed(lambda t: t @ half, half)["median"]
    return found


def rate_step(model: str, x: Tensor) -> dict[str, object]:
    """Steps/s of the rate-coded network, times the pictures x, and the kernels of its layers."""
    net = FusedRateNetwork(network(model, 8).graph, x[:2].cpu(), device=x.device)
    found = speed(net.step_of(x), x)
    return found | {"kernels": dict(Counter(net.kernels.values()).most_common())}


def pack_all(net: fs.FSNetwork) -> fs.FSNetwork:
    """Packs the weights, so that a captured call need not."""
    for module in net.modules():
        if isinstance(module, Synapses):
            module.packed()
    return net


@torch.inference_mode()
def benchmark(session: Session, device: torch.device, model: str) -> None:
    """FS networks against dense ones and simulations, most important first."""
    pixels = size(model)
    session.attempt("peaks", lambda: peaks(device), 10)

    def picture(batch: int, dtype: torch.dtype = torch.float32) -> Tensor:
        x = torch.randn(batch, 3, pixels, pixels, device=device, dtype=dtype)
        return x.contiguous(memory_format=torch.channels_last)

    @functools.cache
    def spiking(K: int) -> fs.FSNetwork:
        return pack_all(copy.deepcopy(network(model, K)).to(device))

    @functools.cache
    def ann(dtype: torch.dtype) -> nn.Module:
        return dense(model).to(device, dtype, memory_format=torch.channels_last)

    for batch in BATCHES[::-1] if device.type == "cuda" else BATCHES[:1]:
        for K in (8, 10):
            name = f"fs K={K} batch {batch}"
            session.attempt(
                name,
                lambda K=K, b=batch: speed(spiking(K), picture(b)) | {"work": work(model, K, b)},
                10,
            )
        for name, dtype in (("fp16", torch.float16), ("fp32", torch.float32)):
            session.attempt(
                f"dense {name} batch {batch}",
                lambda d=dtype, b=batch: speed(ann(d), picture(b, d)),
                10,
            )
    largest = BATCHES[-1] if device.type == "cuda" else 1
    for K in (8, 10):
        session.attempt(
            f"layers K={K} batch {largest}",
            lambda K=K: {
                name: {"ms": 1e3 * statistics.median(seconds)}
                for name, seconds in spiking(K).layer_seconds(picture(largest), 10).items()
            },
            10,
        )
    if device.type == "cuda":
        session.attempt(
            "rate-coded step batch 32",
            lambda: rate_step(model, picture(32)),
            15,
        )
    simulated = 32 if device.type == "cuda" else 1
    session.attempt(
        f"explicit steps K=8 batch {simulated}",
        lambda: speed(lambda x: spiking(8).execute(x, StepByStep()), picture(simulated)),
        20,
    )
    if device.type == "cuda":
        session.attempt(
            "dense fp16 torch.compile batch 128",
            lambda: speed(torch.compile(ann(torch.float16)), picture(128, torch.float16)),
            60,
        )


def summary(values: dict[str, object]) -> str:
    """The results as one page of Markdown."""
    lines = ["# What ran on this GPU", ""]
    found = values.get("facts")
    if isinstance(found, dict):
        lines += [f"{found.get('time')}; {found.get('device', 'no GPU: a rehearsal')}", ""]
    lines += ["| what | result |", "|---|---|"]
    peak = values.get("peaks", {})
    for name, value in values.items():
        if name == "facts" or not isinstance(value, dict):
            continue
        if "images_per_s" in value:
            iqr = [1e3 * v for v in value["seconds"]["iqr"]]
            median = 1e3 * value["seconds"]["median"]
            text = (
                f"{value['images_per_s']:.1f} images/s; {median:.3f} ms a batch "
                f"(quartiles {iqr[0]:.3f} to {iqr[1]:.3f})"
            )
            for key, unit in (("memory_bytes", "memory"), ("int8_macs", "int8")):
                if key in value.get("work", {}) and peak.get(key):
                    share = value["work"][key] / value["seconds"]["median"] / peak[key]
                    text += f"; {share:.1%} of the measured {unit} peak"
        elif name == "peaks" and "memory_bytes" in value:
            text = (
                f"{peak['memory_bytes'] / 1e12:.2f} TB/s; int8 {peak['int8_macs'] / 1e12:.0f} and "
                f"fp16 {peak['fp16_macs'] / 1e12:.0f} T multiply-accumulates/s"
            )
        elif name.startswith("layers") and "error" not in value and "skipped" not in value:
            slowest = sorted(value.items(), key=lambda item: -item[1]["ms"])[:5]
            text = "slowest: " + ", ".join(f"{k} {v['ms']:.3f} ms" for k, v in slowest)
        else:
            text = json.dumps(value, default=str)
        lines.append(f"| {name} | {text.replace('|', '/')} |")
    return "\n".join(lines) + "\n"


@in_one_sentence("--out")
def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=9.5)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(arguments)
    device = torch.device(args.device)
    fault = cuda_fault(device) if device.type == "cuda" else None
    if fault:
        print(f"error: {fault}", file=sys.stderr)
        return 2
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    session = Session(args.out or Path(own(f"{ROOT}/outputs/gpu/{stamp}")), args.minutes)
    session.attempt("facts", lambda: facts(device))
    if device.type == "cuda":
        session.attempt("tests", lambda: tests(session))
        session.attempt("compute-sanitizer", lambda: sanitizer(session))
    session.attempt("fragment probe", lambda: probe(session, device))
    benchmark(session, device, args.model)
    print(summary(session.values))
    print(f"written: {session.folder}")
    return 0


if __name__ == "__main__":
    interrupt.raise_once()
    sys.exit(main())
