"""One self-contained HTML page about training runs. Reads files only; starts nothing and knows nothing of how they were made."""
