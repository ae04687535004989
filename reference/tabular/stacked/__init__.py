"""Many θ of one tabular problem at once, in stacked arrays."""
