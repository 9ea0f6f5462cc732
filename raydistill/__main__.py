"""``python -m raydistill``: the command ``raydistill`` where it is not on the PATH."""

from raydistill.cli.main import run

if __name__ == "__main__":
    run()
