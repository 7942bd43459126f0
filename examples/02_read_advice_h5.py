"""Print advice with nothing but h5py: python 02_read_advice_h5.py EXPORT.h5"""

import json
import sys

import h5py

with h5py.File(sys.argv[1]) as version:
    manifest = json.loads(bytes(version["manifest"][:]))["manifest"]
    words, round0 = manifest["actions"] + manifest["skills"], version["round-000"]
    texts, ends = bytes(round0["reason"][:]), round0["reason.offsets"][:6]
    for i, logits in enumerate(round0["logits"][:5]):
        print(f"{words[logits.argmax()]:<20} {logits.max():5.2f}  {texts[ends[i] : ends[i + 1]].decode()}")
