"""Path C: executing skills, choosing among them, and learning what they do."""
