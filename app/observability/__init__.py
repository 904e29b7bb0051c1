"""The pattern library: one signal, one file, one set-up call.

A file here imports its own third-party library, `context.py` and `redaction.py`, and nothing else of
this repository, so that it can be copied into another FastAPI application as it stands.
"""
