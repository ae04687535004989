"""Enclosures of configurable MDPs."""
