"""docker-compose.yml, who reaches whom: three networks, one way in, and every scrape arrives."""

import ipaddress
import re
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from tests.compose_file import ROOT, compose, networks, services

SERVICES = services()
BACKEND_AND_TELEMETRY = {"backend", "telemetry"}
WHERE: dict[str, set[str]] = {
    "setup": set(),
    "migrations": BACKEND_AND_TELEMETRY,
    "app": {"edge", "backend", "telemetry"},
    "worker": BACKEND_AND_TELEMETRY,
    "postgres": {"backend"},
    "valkey": {"backend"},
    "payment-provider": BACKEND_AND_TELEMETRY,
    "customers": {"backend"},
    "synthetic": BACKEND_AND_TELEMETRY,
    "postgres-exporter": BACKEND_AND_TELEMETRY,
    "redis-exporter": BACKEND_AND_TELEMETRY,
    "gateway": {"edge", "telemetry"},
    "doctor": BACKEND_AND_TELEMETRY,
}
"""All others are on the telemetry network alone."""

PUBLISHED = {
    "app": {8000: 8000},
    "gateway": {port: port for port in (3000, 8003, 8010, 8025, 9090, 9093, 16686)},
}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_where_it_belongs(name: str) -> None:
    assert networks(SERVICES[name]) == WHERE.get(name, {"telemetry"})


def test_only_the_edge_has_a_way_out() -> None:
    declared = compose()["networks"]
    assert set(declared) == {"edge", "backend", "telemetry"}
    assert not declared["edge"].get("internal")
    assert declared["backend"]["internal"] is True
    assert declared["telemetry"]["internal"] is True


@pytest.mark.parametrize("name", SERVICES)
def test_only_what_a_person_opens_is_published_and_only_here(name: str) -> None:
    published = {}
    for port in SERVICES[name].get("ports", ()):
        address, outside, inside = port.split(":")
        assert address == "127.0.0.1"
        published[int(outside)] = int(inside)
    assert published == PUBLISHED.get(name, {})


def test_every_port_can_be_moved_by_a_variable_that_the_scripts_know() -> None:
    script = (ROOT / "deploy/stack/compose.sh").read_text("utf-8")
    known = dict(re.findall(r"^\S+ ([A-Z_]+_PORT) (\d+) /\S* \w+$", script, re.MULTILINE))
    moved = services(**{name: str(int(port) + 10_000) for name, port in known.items()})
    outside = {int(port.split(":")[1]) for name in PUBLISHED for port in moved[name]["ports"]}
    assert outside == {port + 10_000 for ports in PUBLISHED.values() for port in ports}


def subnet(name: str) -> Any:
    return ipaddress.ip_network(compose()["networks"][name]["ipam"]["config"][0]["subnet"])


def test_the_collector_has_an_address_that_nobody_else_is_given() -> None:
    address = ipaddress.ip_address(
        SERVICES["otel-collector"]["networks"]["telemetry"]["ipv4_address"]
    )
    config = compose()["networks"]["telemetry"]["ipam"]["config"][0]
    assert address in subnet("telemetry")
    assert address not in ipaddress.ip_network(config["ip_range"])
    assert ipaddress.ip_network(config["ip_range"]).subnet_of(subnet("telemetry"))
    assert not subnet("telemetry").overlaps(subnet("backend"))


def test_another_subnet_is_another_everywhere() -> None:
    default = services()["otel-collector"]["networks"]["telemetry"]["ipv4_address"]
    prefix = default.rpartition(".")[0]
    assert prefix not in str(compose(STACK_SUBNET="10.99.7"))


def test_only_the_backend_is_believed_about_who_asks() -> None:
    """Customers say for whom they ask; from the published port nobody may."""
    believed = ipaddress.ip_network(SERVICES["app"]["environment"]["FORWARDED_ALLOW_IPS"])
    assert believed == subnet("backend")


def scraped() -> set[tuple[str, int]]:
    """Return host and port of everything that Prometheus and its blackbox exporter ask."""
    config = yaml.safe_load((ROOT / "monitoring/prometheus/prometheus.yml").read_text("utf-8"))
    found = set()
    for job in config["scrape_configs"]:
        for group in job.get("static_configs", ()):
            for target in group["targets"]:
                address = urlsplit(target if "//" in target else f"//{target}")
                found.add((str(address.hostname), int(address.port or 80)))
        found |= {
            (rule["replacement"].split(":")[0], int(rule["replacement"].split(":")[1]))
            for rule in job.get("relabel_configs", ())
            if rule.get("target_label") == "__address__"
        }
    return found - {("localhost", 9090)}


@pytest.mark.parametrize("host", sorted({host for host, _ in scraped()}))
def test_prometheus_reaches_what_it_scrapes(host: str) -> None:
    assert networks(SERVICES[host]) & networks(SERVICES["prometheus"])


def test_alerts_and_notifications_find_their_way() -> None:
    for path in ("monitoring/alertmanager", "monitoring/demo/alertmanager"):
        text = (ROOT / path / "alertmanager.yml").read_text("utf-8")
        hosts = set(re.findall(r"(?:http://|smarthost: )([a-z-]+):\d+", text))
        assert hosts == {"mailpit", "notifications"}
    for host in ("mailpit", "notifications", "alertmanager", "prometheus", "loki"):
        assert "telemetry" in networks(SERVICES[host])


def addresses(name: str) -> set[str]:
    """Return the hosts that a service is told of by its environment."""
    environment = SERVICES[name].get("environment", {})
    hosts = {
        urlsplit(str(value)).hostname
        for value in environment.values()
        if str(value).startswith(("http://", "redis://"))
    }
    return {host for host in hosts if host not in (None, "127.0.0.1", "localhost")}


@pytest.mark.parametrize("name", [name for name in SERVICES if addresses(name)])
def test_a_service_reaches_whom_it_is_told_of(name: str) -> None:
    for host in addresses(name):
        assert networks(SERVICES[host]) & networks(SERVICES[name]), host


def test_the_gateway_leads_to_services_that_it_reaches() -> None:
    caddyfile = (ROOT / "monitoring/gateway/Caddyfile").read_text("utf-8")
    sites = re.findall(
        r"^\{\$SITE_(\d+)\} \{\n\timport (\w+) ([a-z-]+) (\d+)\n\}", caddyfile, re.MULTILINE
    )
    assert {int(site) for site, *_ in sites} == set(PUBLISHED["gateway"])
    for _, snippet, host, _ in sites:
        assert networks(SERVICES[host]) & networks(SERVICES["gateway"])
        has_a_login = host in ("grafana", "bugsink")
        assert snippet == ("with_its_own_login" if has_a_login else "with_login")
