"""The discrete toy game: Figures 4 and 7."""
