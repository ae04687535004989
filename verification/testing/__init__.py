"""Support for other people's test suites."""
