"""The steps of every job as plain functions. No Prefect in here."""
