"""Grafana as it is provisioned: its data sources, its dashboards, and that it reaches out for nothing.

Its files are read as it reads them; a running Grafana is asked by `make e2e`. Where its links lead to:
test_correlations.py.
"""

import configparser
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from tests.monitoring.grafana_links import (
    DATASOURCES,
    HERE,
    ROOT,
    compose,
    expanded,
    sources,
)

GRAFANA = ROOT / "monitoring" / "grafana"
OF_A_LINK = re.compile(r"\$\{([^}]+)\}")
"""A variable that Grafana fills in when somebody clicks."""


@pytest.fixture(scope="module")
def grafana() -> dict[str, Any]:
    """The service in docker-compose.yml."""
    service: dict[str, Any] = compose()["services"]["grafana"]
    return service


@pytest.fixture(scope="module")
def provisioned() -> dict[str, dict[str, Any]]:
    """The data sources, by uid."""
    return sources(HERE)


@pytest.fixture(scope="module")
def settings() -> configparser.ConfigParser:
    """grafana.ini; a section or a key that stands there twice is an error."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[method-assign,assignment] # dialTimeout
    parser.read_string((GRAFANA / "grafana.ini").read_text())
    return parser


# Data sources -----------------------------------------------------------------------------------------


def test_the_uids_are_those_that_dashboards_and_links_name(
    provisioned: dict[str, dict[str, Any]],
) -> None:
    assert {uid: source["type"] for uid, source in provisioned.items()} == {
        "prometheus": "prometheus",
        "loki": "loki",
        "jaeger": "jaeger",
        "alertmanager": "alertmanager",
    }
    assert [uid for uid, source in provisioned.items() if source.get("isDefault")] == ["prometheus"]
    assert not any(source["editable"] for source in provisioned.values())
    assert yaml.safe_load(DATASOURCES.read_text())["prune"] is True


def test_every_source_is_a_service_that_grafana_can_reach(
    provisioned: dict[str, dict[str, Any]], grafana: dict[str, Any]
) -> None:
    services = compose()["services"]
    others = [
        ROOT / "monitoring" / path
        for path in ("gateway/Caddyfile", "prometheus/prometheus.yml", "collector/collector.yml")
    ]
    known = "\n".join(path.read_text() for path in others).replace(" ", ":")
    for source in provisioned.values():
        url = urlsplit(source["url"])
        assert (url.scheme, source["access"]) == ("http", "proxy")
        assert set(services[url.hostname]["networks"]) & set(grafana["networks"]), url.hostname
        assert f"{url.hostname}:{url.port}" in known, "others reach it there as well"


def test_every_variable_of_the_files_is_in_grafana_s_environment(grafana: dict[str, Any]) -> None:
    given = dict.fromkeys(grafana["environment"], "set")
    for path in sorted(GRAFANA.glob("provisioning/*/*.yml")):
        expanded(yaml.safe_load(path.read_text()), given)  # else: KeyError


def test_a_dollar_sign_that_is_not_doubled_is_found() -> None:
    with pytest.raises(KeyError):
        expanded({"url": "${__value.raw}x$missing"}, HERE)
    assert expanded({"url": ["$${__value.raw} ${STACK_SCHEME}"]}, HERE) == {
        "url": ["${__value.raw} http"]
    }


def strings(value: Any) -> Iterator[str]:
    """Yield all texts in a structure."""
    if isinstance(value, dict):
        for one in value.values():
            yield from strings(one)
    elif isinstance(value, list):
        for one in value:
            yield from strings(one)
    elif isinstance(value, str):
        yield value


def test_links_have_no_other_variables_than_grafana_fills_in(
    provisioned: dict[str, dict[str, Any]],
) -> None:
    found = {name for text in strings(provisioned) for name in OF_A_LINK.findall(text)}
    assert found == {"__value.raw", "__span.traceId", "traceID", "serviceName"}


def test_what_one_source_names_another_is(provisioned: dict[str, dict[str, Any]]) -> None:
    named = re.findall(
        r"(?:datasourceUid|alertmanagerUid|targetUID): (\S+)", DATASOURCES.read_text()
    )
    assert set(named) == {"prometheus", "loki", "jaeger", "alertmanager"} == set(provisioned)


def test_the_scrape_interval_is_the_one_of_prometheus(
    provisioned: dict[str, dict[str, Any]],
) -> None:
    scraped = yaml.safe_load((ROOT / "monitoring/prometheus/prometheus.yml").read_text())
    data = provisioned["prometheus"]["jsonData"]
    assert data["timeInterval"] == scraped["global"]["scrape_interval"]
    assert compose()["services"]["prometheus"]["image"].endswith(f":v{data['prometheusVersion']}")


# Dashboards and settings ------------------------------------------------------------------------------


def mounts(grafana: dict[str, Any]) -> dict[str, str]:
    """Return what is mounted into Grafana, by its place there; all of the repository is read-only."""
    split = [mount.split(":") for mount in grafana["volumes"]]
    assert all(rest == ["ro"] for source, _, *rest in split if source.startswith("./"))
    return {target: source for source, target, *_ in split}


def test_dashboards_come_from_the_folder_that_is_mounted(grafana: dict[str, Any]) -> None:
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/glasshouse.yml").read_text())[
        "providers"
    ]
    assert mounts(grafana)[provider["options"]["path"]] == "./monitoring/grafana/dashboards"
    assert (provider["folder"], provider["type"]) == ("Glasshouse", "file")
    assert (provider["disableDeletion"], provider["allowUiUpdates"]) == (True, False)


def test_grafana_starts_with_this_configuration_and_on_the_overview(
    grafana: dict[str, Any], settings: configparser.ConfigParser
) -> None:
    mounted = mounts(grafana)
    assert mounted["/etc/grafana/grafana.ini"] == "./monitoring/grafana/grafana.ini"
    assert mounted[settings["paths"]["provisioning"]] == "./monitoring/grafana/provisioning"
    assert mounted[settings["paths"]["data"]] == "grafana-data"
    home = settings["dashboards"]["default_home_dashboard_path"]
    folder, _, name = home.rpartition("/")
    assert mounted[folder] == "./monitoring/grafana/dashboards"
    assert json.loads((GRAFANA / "dashboards" / name).read_text())["uid"] == "glasshouse-overview"


SECTIONS = {
    *("paths", "server", "database", "security", "auth", "auth.anonymous", "auth.basic", "users"),
    *("dashboards", "explore", "unified_alerting", "dataproxy", "metrics", "log", "log.console"),
    *("plugins", "analytics", "news", "snapshots", "public_dashboards"),
}
"""Those that are used, as Grafana's conf/defaults.ini spells them. Of any other Grafana would say nothing."""


def test_no_section_is_one_that_grafana_does_not_have(settings: configparser.ConfigParser) -> None:
    assert set(settings.sections()) == SECTIONS


def test_no_secret_stands_in_the_file(settings: configparser.ConfigParser) -> None:
    security = settings["security"]
    files = {key: security[key] for key in ("admin_user", "admin_password", "secret_key")}
    assert files == {
        "admin_user": "$__file{/run/secrets/stack_user}",
        "admin_password": "$__file{/run/secrets/stack_password}",
        "secret_key": "$__file{/run/secrets/grafana_secret_key}",
    }


def test_grafana_reaches_out_for_nothing(settings: configparser.ConfigParser) -> None:
    off = {
        "analytics": ["reporting_enabled", "check_for_updates", "check_for_plugin_updates"],
        "plugins": ["preinstall_auto_update", "plugin_admin_enabled"],
        "news": ["news_feed_enabled"],
        "snapshots": ["enabled", "external_enabled"],
        "public_dashboards": ["enabled"],
        "users": ["allow_sign_up", "allow_org_create"],
        "auth.anonymous": ["enabled"],
        "unified_alerting": ["execute_alerts"],
    }
    on = {
        "plugins": ["preinstall_disabled", "public_key_retrieval_disabled"],
        "security": ["disable_gravatar"],
        "metrics": ["enabled"],
        "unified_alerting": ["enabled"],
        "explore": ["enabled"],
    }
    for wanted, keys in ((False, off), (True, on)):
        for section, names in keys.items():
            for name in names:
                assert settings.getboolean(section, name) is wanted, f"[{section}] {name}"


def test_each_setting_stands_in_one_place(
    grafana: dict[str, Any], settings: configparser.ConfigParser
) -> None:
    here = {
        f"GF_{section}_{key}".upper().replace(".", "_")
        for section in settings.sections()
        for key in settings[section]
    }
    there = {name for name in grafana["environment"] if name.startswith("GF_")}
    assert there == {"GF_SERVER_ROOT_URL", "GF_SECURITY_COOKIE_SECURE"}  # the port, and TLS
    assert not here & there
    opening = (GRAFANA / "grafana.ini").read_text().partition("[")[0]
    assert all(name in opening for name in there)


def test_whatever_grafana_is_told_is_read(grafana: dict[str, Any]) -> None:
    provisioning = "".join(path.read_text() for path in GRAFANA.glob("provisioning/*/*.yml"))
    others = {name for name in grafana["environment"] if not name.startswith(("GF_", "GO"))}
    assert others == {name for name in others if f"${{{name}}}" in provisioning}
