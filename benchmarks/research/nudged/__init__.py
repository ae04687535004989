"""Leaders that learn from followers that are paid a little of their reward, beside leaders with critics."""
