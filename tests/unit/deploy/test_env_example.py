"""`.env.example` is the list of settings that people read: it must be the one that the code has."""

import re
from pathlib import Path

from pydantic import SecretStr
from pydantic_settings import BaseSettings

from app.settings import DEFAULT_SECRETS_DIR, Settings
from sandbox.customers.settings import CustomersSettings
from sandbox.notifications.settings import NotificationsSettings
from sandbox.payment_provider.settings import ProviderSettings
from sandbox.signals_viewer.settings import ViewerSettings
from sandbox.synthetic_journey.settings import JourneySettings
from tests.compose_file import variables

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


def of_all_processes() -> dict[str, str]:
    classes = (
        Settings,
        ProviderSettings,
        ViewerSettings,
        NotificationsSettings,
        JourneySettings,
        CustomersSettings,
    )
    return {name: value for settings in classes for name, value in defaults(settings).items()}


def test_every_setting_is_listed_with_its_default() -> None:
    listed = {name: value for _, name, value in LINE.findall(EXAMPLE.read_text("utf-8"))}
    scripts = (EXAMPLE.parent / "deploy/stack/up.sh").read_text("utf-8")
    wait = re.search(r"\$\{STACK_WAIT_SECONDS:-(\d+)\}", scripts)
    assert wait is not None
    others = {"SECRETS_DIR": str(DEFAULT_SECRETS_DIR), "STACK_WAIT_SECONDS": wait[1]}
    assert listed == variables() | others | of_all_processes()


def test_the_stack_changes_no_default_of_what_can_be_set_for_it() -> None:
    """But one: what is unset for the service means 1 in development, and is said for all to see."""
    known = of_all_processes()
    shared = {name: value for name, value in variables().items() if name in known}
    assert shared.pop("OTEL_TRACES_SAMPLER_ARG") == "1"
    assert shared == {name: known[name] for name in shared}


def test_copying_the_file_changes_nothing() -> None:
    active = [name for comment, name, _ in LINE.findall(EXAMPLE.read_text("utf-8")) if not comment]
    assert active == []
