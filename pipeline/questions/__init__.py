"""What is asked and what an answer means: describe, templates, prompts, parse, check. Asks nobody."""
