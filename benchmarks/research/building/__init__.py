"""What drives the published curves of the building."""
