"""A PostgreSQL that comes back with what it had, as a server does after a reboot."""

from pathlib import Path

from tests.tools import PostgresServer


class LastingPostgres(PostgresServer):
    """Keeps its cluster where a stop does not remove it; whoever made the directory removes that."""

    _made: tuple[list[str], str] | None = None

    def command(self, directory: Path) -> tuple[list[str], str]:
        del directory
        if self._made is None:
            cluster = self._parent / f"{self.name}-cluster"
            cluster.mkdir(mode=0o711)
            self._made = super().command(cluster)
        return self._made
