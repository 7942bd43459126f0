"""Path A: advised plans rolled out inside the world model."""
