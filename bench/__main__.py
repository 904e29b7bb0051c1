"""`python -m bench`; see cli.py."""

import os
import signal
import sys
from types import FrameType


def _interrupted(number: int, frame: FrameType | None) -> None:
    del number, frame
    sys.stderr.write("interrupted\n")
    os._exit(130)  # in the middle of an import, where an exception would be a traceback


if __name__ == "__main__":
    for _each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(_each, _interrupted)

    from loguru import logger

    from bench.cli import app
    from bench.memory import stay

    stay()
    logger.remove()  # our own log: what is measured has its own processes
    app(prog_name="python -m bench")
