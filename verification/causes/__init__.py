"""Effects of known mistakes on the mean of an estimate, without lists of paths, and which of them explains a bias."""
