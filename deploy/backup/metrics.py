"""What is known about backups, as the node exporter's textfile collector reads it.

Owns backup_last_success_timestamp_seconds, backup_duration_seconds, backup_size_bytes,
backup_last_attempt_timestamp_seconds and backup_last_attempt_success. A failed attempt keeps what is known
of the last success, so that the age of the newest backup goes on rising.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from deploy.backup.directory import replace as replace_file
from deploy.backup.errors import BackupFailed

MODE: Final = 0o644
"""The node exporter runs as another account."""
HELP: Final = {
    "backup_last_success_timestamp_seconds": "When the newest backup was made and verified; 0: never.",
    "backup_duration_seconds": "How long the last successful backup took.",
    "backup_size_bytes": "Size of the newest backup.",
    "backup_last_attempt_timestamp_seconds": "When a backup was last tried.",
    "backup_last_attempt_success": "Whether that made a backup.",
}


@dataclass(frozen=True, slots=True)
class Known:
    """What is known: times in Unix seconds, 0 if never."""

    last_success: float = 0.0
    duration: float = 0.0
    size: float = 0.0
    last_attempt: float = 0.0
    succeeded: bool = False

    def after_success(self, *, at: float, duration: float, size: int) -> "Known":
        """Return what is known after an attempt that made a backup."""
        return Known(at, duration, size, at, succeeded=True)

    def after_failure(self, *, at: float) -> "Known":
        """Return what is known after an attempt that made none."""
        return replace(self, last_attempt=at, succeeded=False)


def read_metrics(path: Path) -> Known:
    """Return what the last attempt left; nothing, if the file is not there or not ours."""
    try:
        families = list(text_string_to_metric_families(path.read_text()))
    except (OSError, ValueError):
        return Known()
    values = {sample.name: sample.value for family in families for sample in family.samples}
    return Known(
        last_success=values.get("backup_last_success_timestamp_seconds", 0.0),
        duration=values.get("backup_duration_seconds", 0.0),
        size=values.get("backup_size_bytes", 0.0),
        last_attempt=values.get("backup_last_attempt_timestamp_seconds", 0.0),
        succeeded=bool(values.get("backup_last_attempt_success")),
    )


def write_metrics(path: Path, known: Known) -> None:
    """Replace the file at once.

    Raises:
        BackupFailed: It cannot be written.
    """
    registry = CollectorRegistry()
    values = (known.last_success, known.duration, known.size, known.last_attempt, known.succeeded)
    for (name, text), value in zip(HELP.items(), values, strict=True):
        Gauge(name, text, registry=registry).set(value)
    try:
        replace_file(path, generate_latest(registry).decode(), mode=MODE)
    except OSError as error:
        raise BackupFailed(f"the metrics cannot be written to {path}: {error.strerror}") from error
