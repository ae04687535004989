"""How the certified reference data of `bilevelrl.tasks` and the certified statements are made."""
