"""Replay: ring buffer, its copy on a device, memory check. No learning."""
