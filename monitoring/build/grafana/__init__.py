"""What all dashboards are made of: panels, queries, variables, links, annotations, colours, layout.

A dashboard (monitoring/build/dashboards, one file each) says what is asked and what is shown; how it looks
is decided here, once. The JSON is that of Grafana 13's provisioning (schema v1), written with the Foundation
SDK.
"""
