"""What is kept of every question and answer. Asks nobody."""
