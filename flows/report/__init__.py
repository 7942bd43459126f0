"""One self-contained HTML page about training runs. Reads files only; starts nothing, trains nothing."""
