"""Studies of bias, variance, speed and memory, and the paper's experiments: everything that takes long."""
