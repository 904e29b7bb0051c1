"""The commands that start, deploy, smoke-test and validate the service; never imported by it."""
