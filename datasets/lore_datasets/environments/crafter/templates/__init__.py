"""The questions about Crafter as versioned data files; their format is read by :mod:`pipeline.questions.prompts`."""
