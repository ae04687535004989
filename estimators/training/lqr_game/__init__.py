"""Training of leaders of LQR games."""
