"""Routes for configurable MDPs."""
