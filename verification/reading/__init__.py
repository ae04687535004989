"""Reading what users hand in: draws, arrays and texts in files, and objects by their Python names."""
