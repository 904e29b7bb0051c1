"""Makes rules of objectives: records, burn-rate alerts, and the tests that prove both.

groups.py          the rule file of an objective; indicators.py has its queries, alerts.py its alerts
promtool_tests.py  its test file: series.py and labels.py make the series, checks.py and value_tests.py say
                   what has to come out, texts.py what people will read
"""
