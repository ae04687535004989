"""What critics of the LQR game know."""
