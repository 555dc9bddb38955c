"""On which devices fskernel runs, and what is missing where it does not."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch

from fskernel.kernels import info, native

if TYPE_CHECKING:
    from typing_extensions import Self

_log = logging.getLogger(__name__)

OLDEST_CAPABILITY = (8, 0)  # Ampere: what the CUDA kernels are written for

_usable: set[torch.device] = set()  # devices that were looked at and can be used


def cuda_fault(device: torch.device | str = "cuda") -> str | None:
    """What is missing to run on this CUDA device, in one sentence with the cure, or None.

    It is asked whenever a device is asked for, never at import.
    """
    state = native.cuda_state()
    if state is None:
        why = info.build_facts().get("cuda", "it was not built by setup.py")
        return (
            f"this fskernel was built without CUDA kernels ({why}): install a CUDA toolkit or set "
            "CUDA_HOME, and build it again with FSKERNEL_CUDA=1"
        )
    if torch.version.cuda is None:
        return (
            f"this torch ({torch.__version__}) was built without CUDA: install one that was, see "
            "https://pytorch.org/get-started"
        )
    if not state["driver"]:
        return "there is no NVIDIA driver on this machine: install one, or use device 'cpu'"
    if not state["devices"]:
        return (
            f"there is an NVIDIA driver (for CUDA {_version(state['driver'])}), but no GPU that "
            f"this fskernel (CUDA {_version(state['runtime'])}) can use: {state['words']}"
        )
    index = torch.device(device).index or 0
    if index >= state["devices"]:
        return f"there is no GPU {index}: this machine has {state['devices']}, counted from 0"
    name, *capability = native.cuda_device(index)[:3]
    if tuple(capability) < OLDEST_CAPABILITY:
        return (
            f"GPU {index}, a {name}, has compute capability {capability[0]}.{capability[1]}: the "
            f"kernels need {OLDEST_CAPABILITY[0]}.{OLDEST_CAPABILITY[1]} (Ampere) or later"
        )
    return None


def check_device(device: torch.device | str, what: str) -> None:
    """Refuses a device that fskernel cannot run on.

    Args:
        device: where something is or shall go.
        what: the beginning of the sentence: "x is on", "the network shall go to".

    Raises:
        ValueError: naming the device and what is missing.
    """
    device = torch.device(device)
    if device.type == "cpu" or device in _usable or torch.compiler.is_compiling():
        return
    if device.type != "cuda":
        raise ValueError(f"{what} {device}: fskernel runs on 'cpu' and 'cuda'; use .to('cpu')")
    fault = cuda_fault(device)
    if fault:
        _log.info("%s cannot be used: %s", device, fault)
        raise ValueError(f"{what} {device}: {fault}")
    _usable.add(device)
    if _log.isEnabledFor(logging.INFO):
        name, major, minor = native.cuda_device(device.index or 0)[:3]
        _log.info("%s can be used: a %s, compute capability %d.%d", device, name, major, minor)


class Movable:
    """Mixed into modules: says what is missing before they are moved to a GPU that is not there."""

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """As torch's; ValueError says what is missing for a device that cannot be used."""
        device = torch._C._nn._parse_to(*args, **kwargs)[0]
        if device is not None and device.type != "meta":
            check_device(device, f"the {_noun(self)} shall go to")
        return super().to(*args, **kwargs)

    def cuda(self, device: int | torch.device | str | None = None) -> Self:
        """As torch's; ValueError says what is missing for a device that cannot be used."""
        return self.to(
            torch.device("cuda", device) if isinstance(device, int) else device or "cuda"
        )


def _noun(module: object) -> str:
    return "network" if hasattr(module, "steps") else "layer"


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"
