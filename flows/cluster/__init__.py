"""Work on Dask clusters. Knows no learner."""
