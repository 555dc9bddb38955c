"""``python -m fskernel`` prints how this fskernel was built and what it runs on."""

from fskernel.kernels.info import build_info

print(build_info())
