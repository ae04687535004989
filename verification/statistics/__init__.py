"""Tests of means, variances and covariances with a declared error rate and a declared power."""
