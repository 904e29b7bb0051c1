"""`python -m bench`; see cli.py."""

from loguru import logger

from bench.cli import app

if __name__ == "__main__":
    logger.remove()  # our own log: what is measured has its own processes
    app(prog_name="python -m bench")
