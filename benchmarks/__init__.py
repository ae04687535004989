"""Speed and memory, the paper's experiments, and everything else that takes long.

`experiments` has the experiments, task by task; `sweeping` what they are made with: grids, resumable sweeps, curves,
figures; `reference_problems` makes the certified reference data. Here are the commands (`reproduce`,
`train_command`), and what is timed: `speed` makes `README.md`, `test_*` run under pytest-benchmark.
"""
