"""The main job: rows of estimators and routes against the truth."""
