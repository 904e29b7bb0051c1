"""The environment: what is wrong with it is said in one sentence each, and never with a value."""

import os
from pathlib import Path

import pytest

from app.settings import Settings, SettingsError, load_settings

SAFE = {
    "ENVIRONMENT": "production",
    "SECRET_KEY": "0123456789abcdef0123456789abcdef",
    "DATABASE_URL": "postgresql://someone:word@database/glasshouse",
    "REDIS_URL": "redis://redis:6379/0",
    "PAYMENT_PROVIDER_URL": "https://payments.example",
}


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable of this machine and no `.env` of this directory."""
    monkeypatch.chdir(tmp_path)
    known = {name.upper() for name in Settings.model_fields}
    for name in [*os.environ]:
        if name.upper() in known | {"SECRETS_DIR"}:
            monkeypatch.delenv(name)
    monkeypatch.setattr("app.settings.DEFAULT_SECRETS_DIR", tmp_path / "none")


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A directory of secrets, which SECRETS_DIR names."""
    directory = tmp_path / "secrets"
    directory.mkdir()
    monkeypatch.setenv("SECRETS_DIR", str(directory))
    return directory


def load(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Settings:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return load_settings()


def complaint(monkeypatch: pytest.MonkeyPatch, **environment: str) -> str:
    """Return what is said about an environment that cannot be."""
    with pytest.raises(SettingsError) as refusal:
        load(monkeypatch, **environment)
    assert refusal.value.__cause__ is None, "a traceback would show the values after all"
    assert refusal.value.__suppress_context__
    return str(refusal.value)


def test_without_any_variable_the_service_starts_embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch)
    assert settings.environment == "development"
    assert settings.database_url.startswith("sqlite+aiosqlite:///")
    assert settings.redis_url is None
    assert settings.cors_origins == ()


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {name.upper(): "" for name in Settings.model_fields}
    assert load(monkeypatch, **names) == load_settings()
    assert load_settings().port == 8000


@pytest.mark.parametrize(
    "url", ["postgres://u:p@h/d", "postgresql://u:p@h/d", "postgresql+asyncpg://u:p@h/d"]
)
def test_a_postgresql_address_may_be_written_as_people_write_it(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    assert load(monkeypatch, DATABASE_URL=url).database_url == "postgresql+asyncpg://u:p@h/d"


def test_a_variable_counts_more_than_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("PORT=1234\nLOG_LEVEL=debug\nOF_SOMEBODY_ELSE=1\n")
    settings = load(monkeypatch, PORT="4321")
    assert (settings.port, settings.log_level) == (4321, "DEBUG")


def test_secrets_may_be_files(monkeypatch: pytest.MonkeyPatch, secrets: Path) -> None:
    (secrets / "secret_key").write_text("from a file, as containers have them\n")
    (secrets / "redis_url").write_text("redis://:word@valkey:6379/0")
    (secrets / "of_somebody_else").write_text("whatever")
    settings = load(monkeypatch)
    assert settings.secret_key.get_secret_value() == "from a file, as containers have them"
    assert settings.redis_url is not None
    assert settings.redis_url.get_secret_value() == "redis://:word@valkey:6379/0"


def test_a_variable_counts_more_than_a_secret_file(
    monkeypatch: pytest.MonkeyPatch, secrets: Path
) -> None:
    (secrets / "secret_key").write_text("from a file, as containers have them")
    settings = load(monkeypatch, SECRET_KEY="from the environment, which overrules")
    assert settings.secret_key.get_secret_value() == "from the environment, which overrules"


def test_containers_need_not_name_their_directory_of_secrets(
    monkeypatch: pytest.MonkeyPatch, secrets: Path
) -> None:
    monkeypatch.delenv("SECRETS_DIR")
    monkeypatch.setattr("app.settings.DEFAULT_SECRETS_DIR", secrets)
    (secrets / "secret_key").write_text("from a file, as containers have them")
    assert load(monkeypatch).secret_key.get_secret_value() == "from a file, as containers have them"


def test_a_directory_of_secrets_that_is_named_has_to_exist(
    monkeypatch: pytest.MonkeyPatch, secrets: Path
) -> None:
    secrets.rmdir()
    assert complaint(monkeypatch) == f"SECRETS_DIR: {secrets} is no directory"


def test_a_secret_that_cannot_be_read_is_said_by_name(
    monkeypatch: pytest.MonkeyPatch, secrets: Path
) -> None:
    (secrets / "secret_key").write_text("hidden")

    def refuse(path: Path, *_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_text", refuse)  # root may read everything
    said = complaint(monkeypatch)
    assert said == f"SECRETS_DIR: {secrets / 'secret_key'} cannot be read (Permission denied)"


def test_production_starts_when_nothing_is_unsafe(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, **SAFE)
    assert settings.environment == "production"
    assert settings.database_url.startswith("postgresql+asyncpg://")


UNSAFE = {
    "SECRET_KEY": "",
    "DATABASE_URL": "",
    "REDIS_URL": "",
    "PAYMENT_PROVIDER_URL": "",
    "CORS_ORIGINS": "https://shop.example,*",
    "OPERATIONS_TOKEN": "fifteen letters",
    "SYNTHETIC_TOKEN": "fifteen letters",
}


@pytest.mark.parametrize(("name", "value"), UNSAFE.items(), ids=UNSAFE)
def test_production_refuses_each_unsafe_default_and_only_that(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    said = complaint(monkeypatch, **(SAFE | {name: value}))
    assert said.startswith("unsafe in production: ")
    assert [other for other in UNSAFE if other in said] == [name]


def test_production_says_all_that_is_unsafe_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said = complaint(
        monkeypatch,
        ENVIRONMENT="production",
        CORS_ORIGINS="*",
        OPERATIONS_TOKEN="short",
        SYNTHETIC_TOKEN="short",
    )
    assert [name for name in UNSAFE if name in said] == [*UNSAFE]
    assert said.count("unsafe in production") == 1
    assert len(said.split("; ")) >= len(UNSAFE)


@pytest.mark.parametrize("environment", ["development", "test", "staging"])
def test_elsewhere_the_defaults_are_welcome(
    monkeypatch: pytest.MonkeyPatch, environment: str
) -> None:
    assert load(monkeypatch, ENVIRONMENT=environment).environment == environment


SECRET = "s3cr3t"

BAD = {
    "PORT": "s3cr3t",
    "WORKER_METRICS_PORT": "70000",
    "ENVIRONMENT": "s3cr3t",
    "LOG_LEVEL": "s3cr3t",
    "LOG_FORMAT": "s3cr3t",
    "OTEL_TRACES_SAMPLER_ARG": "s3cr3t",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "s3cr3t:4318",
    "SENTRY_DSN": "https://sentry.example/s3cr3t",
    "REDIS_URL": "s3cr3t@redis:6379",
    "SECRET_KEY": "s3cr3t",
    "ACCESS_TOKEN_MINUTES": "0",
    "MAX_BODY_BYTES": "s3cr3t",
    "DRAIN_SECONDS": "-1",
    "RATE_LIMIT_LOGIN": "s3cr3t",
    "RATE_LIMIT_REGISTRATION": "1/minute; 2/minute",
    "DATABASE_POOL_SIZE": "s3cr3t",
    "EXTERNAL_ATTEMPTS": "0",
    "WORKER_CONCURRENCY": "0",
}

BAD_ADDRESSES = [
    ("DATABASE_URL", "mysql://someone:s3cr3t@database/glasshouse"),
    ("DATABASE_URL", "s3cr3t"),
    ("DATABASE_URL", "postgresql+psycopg://someone:s3cr3t@database/glasshouse"),
    # A password with characters that had to be escaped falls apart into a port.
    ("DATABASE_URL", "postgresql://someone@database:s3cr3t/glasshouse"),
    ("PAYMENT_PROVIDER_URL", "s3cr3t"),
    ("PAYMENT_PROVIDER_URL", "ftp://someone:s3cr3t@payments.example"),
    ("PAYMENT_PROVIDER_URL", "https://someone:s3cr3t@payments.example:port"),
]


@pytest.mark.parametrize(("name", "value"), [*BAD.items(), *BAD_ADDRESSES])
def test_a_bad_value_is_one_sentence_that_names_the_variable_without_the_value(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    said = complaint(monkeypatch, **{name: value})
    assert said.startswith(f"{name}: ")
    assert "\n" not in said
    assert len(said) < 200
    assert SECRET not in said
    assert "validation error" not in said
    assert "pydantic" not in said


def test_every_bad_value_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said = complaint(monkeypatch, **BAD)
    assert {name for name in BAD if f"{name}: " in said} == set(BAD)
    assert SECRET not in said


def test_what_settings_show_of_themselves_holds_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(
        monkeypatch,
        SECRET_KEY=SECRET * 8,
        OPERATIONS_TOKEN=SECRET,
        SYNTHETIC_TOKEN=SECRET,
        DATABASE_URL=f"postgresql://someone:{SECRET}@database/glasshouse",
        REDIS_URL=f"redis://:{SECRET}@redis:6379/0",
        SENTRY_DSN=f"https://{SECRET}@sentry.example/1",
    )
    assert SECRET not in repr(settings)
    assert SECRET not in str(settings)
