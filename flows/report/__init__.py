"""Self-contained HTML pages about training runs, advice versions and studies. Reads files, starts nothing."""
