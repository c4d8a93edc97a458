"""Run folders, and what a finished run is."""
