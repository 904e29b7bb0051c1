"""Turns objectives and declared alerts into rules, their tests and other files that are never edited."""
