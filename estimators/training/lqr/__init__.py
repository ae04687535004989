"""Training of leaders of configurable LQRs."""
