"""Shared settings: property tests are reproducible and never fail for being slow."""

import hypothesis

hypothesis.settings.register_profile("gate", deadline=None, derandomize=True, print_blob=True, database=None)
hypothesis.settings.load_profile("gate")
