"""`python -m transfer`: the command `transfer`, where it is not installed."""

from transfer.commands.exit_codes import run
from transfer.commands.main import main

if __name__ == "__main__":
    run(main, "python -m transfer")
