"""Versions outside the store: HDF5 files, cards, Croissant, shipped datasets."""
