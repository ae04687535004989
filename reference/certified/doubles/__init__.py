"""Double-precision points from which enclosures start."""
