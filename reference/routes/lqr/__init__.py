"""Routes for linear-quadratic problems."""
