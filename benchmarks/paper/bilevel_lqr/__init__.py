"""The bi-level LQR game: Figure 5."""
