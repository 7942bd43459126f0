"""The ``lore`` command: verbs, messages, exit codes. Only this layer prints."""
