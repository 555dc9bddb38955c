"""Builds C++ of the emulator's tests: `bench.emulated.build` with what those sources include."""

from bench.emulated import build as compiler

ROOT, FOLDER = compiler.ROOT, compiler.FOLDER
# Not all of csrc/cuda, so that a module is built anew only where its own sources changed.
READS = (
    "csrc/*.h",
    *(
        f"csrc/cuda/{name}"
        for name in (
            "tensor*",
            "byte_map.h",
            "calls.h",
            "kernel/tensor/*",
            "kernel/byte_map.cuh",
            "kernel/integrate.cuh",
            "kernel/seal.*",
            "kernel/vector.cuh",
            "kernel/configs.inc",
            "kernel/gpu.h",
        )
    ),
    "csrc/simt/*",
    "tests/cuda/*.h",
    "tests/simt/*.h",
    "tests/simt/*.cpp",
)


def build(name, sources, *flags):
    """The path of a program."""
    return compiler.build(name, sources, "-Itests/simt", *flags, reads=READS)


def module(name, *sources, flags=()):
    """The pybind11 module of that name."""
    return compiler.module(name, sources, "-Itests/simt", *flags, reads=READS)
