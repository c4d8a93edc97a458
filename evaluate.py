from transfer.commands.main import run_script

if __name__ == "__main__":
    run_script("evaluate")
