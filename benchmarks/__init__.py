"""One file per published number; ``python -m benchmarks`` runs all and writes ``benchmarks/results/<name>.json``."""
