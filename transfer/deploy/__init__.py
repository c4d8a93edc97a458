"""The end of the walk: a finished run, or a file exported from one, put to use on new photos."""
