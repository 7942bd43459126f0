"""The offline phase: states in, one version of an advice dataset out. No torch, no game engine, no Prefect in here."""
