"""What the runs of a training act in, for each kind of problem."""
