"""A right estimate as a form with blanks, kind by kind, and its mean for whatever is written into them."""
