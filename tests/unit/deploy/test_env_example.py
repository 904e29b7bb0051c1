"""`.env.example` is the list of settings that people read: it must be the one that the code has."""

import re
from pathlib import Path

from pydantic import SecretStr
from pydantic_settings import BaseSettings

from app.settings import Settings
from sandbox.notifications.settings import NotificationsSettings
from sandbox.payment_provider.settings import ProviderSettings
from sandbox.signals_viewer.settings import ViewerSettings
from sandbox.synthetic_journey.settings import JourneySettings

EXAMPLE = Path(__file__).parents[3] / ".env.example"
LINE = re.compile(r"^(# )?([A-Z][A-Z0-9_]*)=(.*)$", re.MULTILINE)


def defaults(settings: type[BaseSettings]) -> dict[str, str]:
    """Return each variable with its default as one would write it; empty for none and for secrets."""
    written = {}
    for name, field in settings.model_fields.items():
        variable = str(field.validation_alias or name).upper()
        default = field.get_default(call_default_factory=True, validated_data={})
        unset = default in (None, (), {}) or isinstance(default, SecretStr)
        written[variable] = "" if unset else str(default)
    return written


def test_every_setting_is_listed_with_its_default() -> None:
    listed = {name: value for _, name, value in LINE.findall(EXAMPLE.read_text("utf-8"))}
    assert listed == defaults(Settings) | defaults(ProviderSettings) | defaults(
        ViewerSettings
    ) | defaults(NotificationsSettings) | defaults(JourneySettings)


def test_copying_the_file_changes_nothing() -> None:
    active = [name for comment, name, _ in LINE.findall(EXAMPLE.read_text("utf-8")) if not comment]
    assert active == []
