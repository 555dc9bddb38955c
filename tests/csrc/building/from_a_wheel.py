"""Run in an environment that has a wheel of fskernel and torch: loads, converts, runs a network.

    python from_a_wheel.py [NETWORK.safetensors]

Prints as JSON what is installed, and of the network the bits that it gives for fixed images.
"""

import hashlib
import json
import shutil
import sys

import torch

import fskernel as fs


def images(n: int = 3) -> torch.Tensor:
    """The same float32 [n, 3, 32, 32] with every torch: no generator is asked."""
    steps = torch.arange(n * 3 * 32 * 32, dtype=torch.int64) * 7919 % 4093
    return (steps.double() / 1023 - 2).float().view(n, 3, 32, 32)


def answers(net) -> dict:
    """Digest of the logits' bits, and the spikes of every image."""
    logits, stats = net.run(images())
    bits = logits.contiguous().view(torch.int32).tolist()
    digest = hashlib.sha256(json.dumps(bits).encode()).hexdigest()
    return {"logits": digest, "spikes": stats.total_spikes().tolist()}


if __name__ == "__main__":
    info = fs.build_info()
    converted = fs.convert(fs.models.cifar_resnet8(weights="cifar10"), images(8), K=8)
    spikes = answers(converted)["spikes"]
    assert len(spikes) == 3 and all(0 < n < 8 * converted.neurons for n in spikes), spikes
    assert torch.equal(converted(images()), converted.execute(images(), fs.reference.literal))
    print(
        json.dumps(
            {
                "torch": torch.__version__,
                "torch_built": info["torch_built"],
                "isa": info["isa_current"],
                "cuda_fault": fs.kernels.device.cuda_fault(),
                "compiler": shutil.which("c++") or shutil.which("cc"),
                "file": fs.__file__,
                **(answers(fs.load(sys.argv[1])) if len(sys.argv) > 1 else {}),
            }
        )
    )
