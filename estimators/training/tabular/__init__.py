"""Training of leaders of configurable MDPs."""
