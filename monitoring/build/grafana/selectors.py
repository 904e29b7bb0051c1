"""What a person chose at the top of a dashboard, as queries say it: the time, the instances, the environment.

A selector of ours has `CHOSEN` in it, which the variables `environment` and `instance` decide (variables.py).
"""

from typing import Final

ZOOM: Final = "$__rate_interval"
"""The window of rates: four scrapes at least, and never less than a pixel."""
SHOWN: Final = "$__range"
"""All of the time that is shown."""

CHOSEN: Final = 'instance=~"$instance"'
API: Final = f'job="api",{CHOSEN}'
WORKER: Final = f'job="worker",{CHOSEN}'
PROCESSES: Final = f'job=~"api|worker",{CHOSEN}'

ENVIRONMENT: Final = 'deployment_environment_name=~"${environment:regex}"'
OUR_LOGS: Final = f'{{service_name=~"glasshouse.*",{ENVIRONMENT}}}'
"""The lines of all our services."""
NOTEWORTHY: Final = 'level=~"WARNING|ERROR|CRITICAL"'
