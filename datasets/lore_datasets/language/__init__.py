"""The language of skills: conditions, skills, geometry of a view. Runs nothing."""
