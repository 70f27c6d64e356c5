"""Where a model runs: memory, threads and operators of each kind of device."""
