"""What slo.py stands on: the declared objectives, how they stand, and where the numbers come from.

objectives.py                       the declaration, read from YAML
assessment.py                       what follows from numbers: ok, burning, exhausted, no data
own_levels.py                       the numbers of this process: own_events.py over event_history.py
recorded_levels.py                  the numbers of Prometheus, asked by prometheus_api.py
report.py, report_markdown.py       how a week was
"""
