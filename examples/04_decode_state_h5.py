"""Print one game state in words with nothing but h5py: python 04_decode_state_h5.py EXPORT.h5 [ROW]"""

import sys

import h5py

with h5py.File(sys.argv[1]) as version:
    state = version["round-000/state"]
    row = dict(zip(state.attrs["bytes"], state[int(sys.argv[2]) if len(sys.argv) > 2 else 0].tolist(), strict=True))
    for y in range(7):
        print(" ".join(f"{state.attrs['view_values'][row[f'view[{y},{x}]']]:<8.8}" for x in range(9)))
    print("looks", state.attrs["facing_values"][row["facing"]], "|", ", ".join(
        f"{name} {row[name]}" for name in row if "." in name and row[name]))  # fmt: skip
