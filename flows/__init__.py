"""When and where: Prefect flows, the command line. Thin; the only place that imports prefect or dask.distributed."""
