"""The recording rules."""

from monitoring.build.model import Group

GROUPS: tuple[Group, ...] = ()
