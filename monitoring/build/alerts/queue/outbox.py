"""Whether messages get through: waiting, stuck, given up on, and orders that wait behind them.

The gauges are samples of the same rows by each worker: the largest counts (see records/queue.py).
"""

from typing import Final

from monitoring.build.model import Alert, Fires, Silent

_LOGS: Final = '{service_name="glasshouse-worker"} | type="job"'


def _oldest(*values: str) -> dict[str, str]:
    """Return what the workers see; the API's page has the same gauge, at 0."""
    return {'outbox_oldest_age_seconds{job="api",instance="a:8000"}': "0x90"} | {
        f'outbox_oldest_age_seconds{{job="worker",instance="{number}:8002"}}': value
        for number, value in enumerate(values)
    }


def _messages(state: str, *values: str) -> dict[str, str]:
    return {
        f'outbox_messages{{job="worker",instance="{number}:8002",state="{state}"}}': value
        for number, value in enumerate(values)
    }


def _orders(*, paid: str, captured: str) -> dict[str, str]:
    """Return orders that are paid and not fulfilled, as two workers see them, and payments captured."""
    sampled = 'orders_current{job="worker",status="paid",instance='
    counted = 'payments_total{status="captured",decline_reason="none",'
    return {
        f'{sampled}"a:8002"}}': paid,
        f'{sampled}"b:8002"}}': paid,
        f'{counted}job="api",instance="a:8000"}}': captured,
        f'{counted}job="worker",instance="a:8002"}}': "0x90",
    }


ALERTS: Final = (
    Alert(
        name="OutboxBacklog",
        expr="all:outbox_oldest_age_seconds:max > $seconds(5m)",
        wait="1m",
        severity="warning",
        component="queue",
        depends_on=("worker", "broker", "database"),
        summary="Messages wait in the outbox for more than <5m>.",
        description=(
            "The oldest message has waited for {{ $value | humanizeDuration }}; usually it is less"
            " than a second, and a minute when it is tried again."
        ),
        dashboard="worker",
        logs=_LOGS,
        fires=(
            Fires(_oldest("330x30"), "5m", {}, "5m 30s"),
            Fires(_oldest("0x30", "330x30"), "5m", {}, "5m 30s"),
        ),
        silent=(
            Silent("5 minutes exactly, not their sum", _oldest("300x30", "300x30"), "10m"),
            Silent("one sample", _oldest("0x4 330 0x20"), "330s"),
        ),
    ),
    Alert(
        name="OutboxStalled",
        expr="all:outbox_oldest_age_seconds:max > $seconds(15m)",
        wait="1m",
        severity="critical",
        component="queue",
        depends_on=("worker", "broker", "database"),
        summary="Messages are stuck in the outbox: customers have paid and wait for their orders.",
        description=(
            "The oldest message has waited for {{ $value | humanizeDuration }}; usually it is less"
            " than a second, and a minute when it is tried again."
        ),
        dashboard="worker",
        logs=_LOGS,
        fires=(Fires(_oldest("930x30"), "5m", {}, "15m 30s"),),
        silent=(
            Silent("15 minutes exactly", _oldest("900x30"), "10m"),
            Silent("dead letters do not count", _messages("dead", "9x30"), "10m"),
        ),
    ),
    Alert(
        name="DeadLetters",
        expr='state:outbox_messages:max{state="dead"} > 0',
        wait="1m",
        severity="warning",
        component="queue",
        summary="Messages were given up on: a person has to decide about them.",
        description=(
            "{{ $value }} messages are dead letters after 6 attempts each; there should be none."
            " What they were to do is not done."
        ),
        dashboard="worker",
        logs='{service_name="glasshouse-worker"} | type="job" | status="dead"',
        fires=(Fires(_messages("dead", "0x4 3x20", "0x4 3x20"), "8m", {"state": "dead"}, "3"),),
        silent=(
            Silent("there are none", _messages("dead", "0x20"), "10m"),
            Silent("it is tried again", _messages("retrying", "3x20"), "10m"),
        ),
    ),
    Alert(
        # As many orders as were paid in the last 10 minutes may be on their way. If there are more,
        # some wait for longer. The margin is for payments that a restart of the API did not count.
        name="FulfilmentLagging",
        expr="""
        max by (status) (orders_current{job="worker",status="paid"})
        - on () group_left ()
        sum(increase(payments_total{job=~"api|worker",status="captured"}[10m])) > 10
        """,
        wait="5m",
        severity="warning",
        component="queue",
        depends_on=("worker", "broker", "database"),
        summary="Paid orders are not fulfilled within <10m>.",
        description=(
            '{{ $value | printf "%.0f" }} orders have been paid and not fulfilled for more than'
            " <10m>; usually an order is fulfilled within seconds."
        ),
        dashboard="business",
        logs='{service_name="glasshouse-worker"} | type="job" | task="fulfil_order"',
        fires=(
            Fires(_orders(paid="40x60", captured="0+2x60"), "30m", {"status": "paid"}, "20"),
            Fires(_orders(paid="11x60", captured="9x60"), "30m", {"status": "paid"}, "11"),
        ),
        silent=(
            Silent("as many as were just paid", _orders(paid="40x60", captured="0+4x60"), "30m"),
            Silent("a margin of 10", _orders(paid="10x60", captured="9x60"), "30m"),
        ),
    ),
)
