"""A verified copy of the database in a directory, and the metrics that say how old the last one is.

`python -m deploy.backup --to DIRECTORY` is run by a scheduler (docs/operations/backup.md). PostgreSQL is
dumped by pg_dump, SQLite copied by its own backup; what cannot be read back is no backup and gets no name.

    __main__.py    the command
    attempt.py     one attempt, from the lock to the metrics
    directory.py   names, completeness and retention of what is in the directory
    postgres.py, sqlite.py    the copies
    metrics.py     what the node exporter's textfile collector reads
    errors.py      the one error

Needs a DATABASE_URL, the packages of the service and, for PostgreSQL, pg_dump and pg_restore of at least
the server's version.
"""
