"""The paper's experiments and those beyond it, task by task: trainings, their figures and their tables."""
