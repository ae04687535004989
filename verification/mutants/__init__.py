"""Wrong estimators on purpose, and the checks that must catch them."""
