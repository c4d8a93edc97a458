"""`transfer train`, from a copy of the project."""

from transfer.commands.main import run_script

if __name__ == "__main__":
    run_script("train")
