"""Building thermal control: Figure 3."""
