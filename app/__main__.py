"""`python -m app`: see cli.py."""

import os

if __name__ == "__main__":  # worker processes import this file, too, under another name
    # prometheus_client reads it while it is imported. To count in files is for the workers of `serve`.
    metrics_directory = os.environ.pop("PROMETHEUS_MULTIPROC_DIR", "")

    from app.cli import app

    app(obj=metrics_directory)
