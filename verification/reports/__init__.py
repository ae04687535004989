"""Reports for terminals, HTML and figures."""
