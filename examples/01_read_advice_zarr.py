"""Print advice with nothing but zarr and icechunk: python 01_read_advice_zarr.py runs/datasets/NAME.icechunk [vN]"""

import sys

import icechunk
import zarr

repository = icechunk.Repository.open(icechunk.local_filesystem_storage(sys.argv[1]))
session = repository.readonly_session(tag=sys.argv[2] if len(sys.argv) > 2 else "v1")
version = zarr.open_group(session.store, mode="r")
words = version.attrs["manifest"]["actions"] + version.attrs["manifest"]["skills"]
for logits, reason in zip(version["round-000/logits"][:5], version["round-000/reason"][:5], strict=True):
    print(f"{words[logits.argmax()]:<20} {logits.max():5.2f}  {reason}")
