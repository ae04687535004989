"""The follower's own value where the leader pays it, for each kind of problem: what the mixed derivative reads."""
