"""Critics of the leader's values: exact, tables, SARSA, quadratic, networks."""
