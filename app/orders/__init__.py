"""Orders: lines and totals, an explicit state machine, cursor pagination."""
