"""FlashInfer's kernels on NVIDIA GPUs: compiled there, when they are first used."""
