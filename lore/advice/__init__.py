"""Path B: looking stored advice up, and the gate that lets it in."""
