"""People: registration, log-in and sessions, profile, data export and erasure."""
