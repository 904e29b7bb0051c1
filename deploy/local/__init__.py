"""The house on one machine, without containers: what `make run` does, and the care of its environment.

install.sh makes .venv; run.py is the supervisor and its table of contents; locks.py checks the locks.
Everything here is standard library, except for reading .env (python-dotenv, which pydantic-settings brings)
and for asking the application itself whether its settings are valid.
"""
