"""Payments: capture and refund through the external provider, never twice and never lost."""
