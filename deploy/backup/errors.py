"""The one error of a backup."""


class BackupFailed(Exception):
    """No backup was made. Its message is one sentence: what is wrong and, if it is known, what to do."""
