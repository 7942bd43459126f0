"""Print one game state in words with xarray: python 05_decode_state_xarray.py NAME[@vN] [ROW]"""

import sys

import xarray

from lore_datasets.exchange.zarr_store import open_zarr_store

rows = xarray.open_zarr(open_zarr_store(sys.argv[1]), group="round-000", consolidated=False)
state = rows.state.assign_coords(byte=rows.state.attrs["bytes"])[int(sys.argv[2]) if len(sys.argv) > 2 else 0].load()
for y in range(7):
    print(" ".join(f"{state.attrs['view_values'][int(cell)]:<8.8}" for cell in state[9 * y : 9 * y + 9]))
print("looks", state.attrs["facing_values"][int(state.sel(byte="facing"))], "|", ", ".join(
    f"{name} {int(value)}" for name, value in zip(state.byte.values, state.values, strict=True) if "." in name and value
))  # fmt: skip
