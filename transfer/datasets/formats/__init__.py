"""The formats a data set can have: one file each, a row each in the table of sources.py."""
