"""Speed and memory, the paper's experiments, and everything else that takes long.

`paper` has the paper's experiments, task by task, `research` those beyond it (not part of the wheel); `sweeping` what
they are made with: grids, resumable sweeps, curves, figures; `reference_problems` makes the certified reference data.
Here are the commands (`reproduce`, `train_command`). `speed` makes `README.md`; `suite` runs under pytest-benchmark.
"""
