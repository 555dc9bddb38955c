"""The CUDA kernels without a GPU: run and checked on the host by the emulator of csrc/simt."""
