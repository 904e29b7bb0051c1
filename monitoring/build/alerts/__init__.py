"""The alerts, one file a family; a file that exports GROUPS is found by its place here."""

import importlib
import pkgutil
from typing import cast

from monitoring.build.model import Group


def families() -> dict[str, tuple[Group, ...]]:
    """Return the groups of each family, by its name."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {
        name: cast("tuple[Group, ...]", importlib.import_module(f"{__name__}.{name}").GROUPS)
        for name in names
    }
