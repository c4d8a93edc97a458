"""Data sets: where they are, how their files are read, and what of them is used."""
