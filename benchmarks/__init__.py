"""What was measured, and the command that measures it again: `python -m benchmarks`."""
