"""The flow definitions and the embedded server. Steps live in :mod:`flows.jobs`."""
