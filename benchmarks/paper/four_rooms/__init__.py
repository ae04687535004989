"""Four-Rooms: Figures 2 and 6."""
