"""Prompts as versioned data files, one folder per environment; their format is read by
:mod:`pipeline.questions.prompts`."""
