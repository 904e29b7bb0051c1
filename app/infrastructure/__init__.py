"""What the domains stand on: database, cache, broker, and the way to other services."""
