"""One file a command: options to one call to an exit code."""
