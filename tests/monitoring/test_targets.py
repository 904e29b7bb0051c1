"""The house is watched: every target is up under its names, exemplars arrive, and no limit is near.

One stack for all of it, since it takes seconds to start; each property is a subtest.
"""

import re
from collections.abc import Iterator

import pytest

from monitoring.build.prometheus import load_configuration
from tests.monitoring.metrics_of_others import exposed, leave_backup_metrics, listed
from tests.monitoring.promql import selectors
from tests.monitoring.rulebook import rules
from tests.monitoring.stack import CLUSTER, ENVIRONMENT, LiveStack
from tests.monitoring.stack_configuration import NOT_HERE

TRACE_ID = re.compile(r"[0-9a-f]{32}")
SERVICES = {
    "api": "glasshouse",
    "worker": "glasshouse-worker",
    "payment-provider": "glasshouse-payment-provider",
    "synthetic": "glasshouse-synthetic",
    "notifications": "glasshouse-notifications",
}
"""Ours; of what is not ours it is the job's name."""
ROOM = 2
"""A target may have this many times more samples before it is refused."""


@pytest.fixture
def stack() -> Iterator[LiveStack]:
    """The whole house with its customers and a backup."""
    with LiveStack() as stack, stack.customers():
        leave_backup_metrics(stack)
        yield stack


def test_the_house_is_watched(stack: LiveStack, subtests: pytest.Subtests) -> None:
    configured = {job["job_name"] for job in load_configuration()["scrape_configs"]}
    # At first there are none: Prometheus looks for them after it has begun to answer.
    stack.wait_for(
        lambda: {target.job for target in stack.targets()} == configured - set(NOT_HERE),
        "there are targets of every job",
    )

    with subtests.test("every target is up"):
        stack.wait_for(
            lambda: {target.health for target in stack.targets()} == {"up"}, "all targets are up"
        )
    targets = stack.targets()

    with subtests.test("a target has the name of its service and its own address"):
        for target in targets:
            assert target.labels["service"] == SERVICES.get(target.job, target.job)
            assert target.labels.keys() - {"probe"} == {"job", "instance", "service"}

    with subtests.test("a probe is named, and its instance is what it asks"):
        probes = {
            target.labels["probe"]: target.instance
            for target in targets
            if target.job == "blackbox"
        }
        assert probes == {
            "home": f"{stack.api.url}/",
            "live": f"{stack.api.url}/health/live",
            "ready": f"{stack.api.url}/health/ready",
            "health": f"{stack.api.url}/health",
            "docs": f"{stack.api.url}/docs",
            "tls": stack.https.url,
        }

    with subtests.test("every probe succeeds"):
        stack.wait_for_query("probe_success == 1", lambda found: len(found) == len(probes))

    with subtests.test("an exemplar leads to a trace that arrived"):
        stack.wait_for(
            lambda: bool(stack.exemplars("http_request_duration_seconds_bucket")), "an exemplar"
        )
        exemplar = stack.exemplars("http_request_duration_seconds_bucket")[0]
        assert TRACE_ID.fullmatch(exemplar["trace_id"])
        stack.wait_for(lambda: bool(stack.spans.spans(exemplar["trace_id"])), "the spans of it")

    with subtests.test("no target is near its limit of samples"):
        near = stack.query(f"scrape_samples_post_metric_relabeling * {ROOM} > scrape_sample_limit")
        assert near == []
        # Every target has a limit, so that the comparison above says something.
        assert len(stack.query("scrape_sample_limit > 0")) == len(targets)

    with subtests.test("alerts carry the labels of this Prometheus"):
        watchdog = stack.wait_for_notification("Watchdog")["payload"]["alerts"][0]["labels"]
        assert (watchdog["environment"], watchdog["cluster"]) == (ENVIRONMENT, CLUSTER)

    with subtests.test("no rule fails"):
        stack.wait_for(
            lambda: all(rule["health"] != "unknown" for rule in stack.rules()),
            "rules are evaluated",
        )
        assert stack.rules()
        assert stack.rule_errors() == []

    with subtests.test("what rules use of others is exposed"):
        used = {selector.metric for rule in rules() for selector in selectors(rule.expr)}
        found = exposed(stack)
        gone = {
            job: missing
            for job, names in found.items()
            if (missing := used & set(listed()[job]) - set(names))
        }
        assert gone == {}, "run python -m tests.monitoring.metrics_of_others"
