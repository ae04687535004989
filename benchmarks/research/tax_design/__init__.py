"""Tax design, in cells: the published follower and the published update against the truth."""
