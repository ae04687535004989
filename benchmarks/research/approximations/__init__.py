"""How far off the hypergradients are that are not exact, problem by problem."""
