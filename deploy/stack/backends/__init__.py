"""Clients of what `make up` starts: as much of each API as the doctor and tests/e2e ask, in types.

They raise nothing but what errors.py has, and no text of theirs repeats a password, a token or an address's
credentials. Each is safe to use from several threads.
"""
