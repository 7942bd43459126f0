"""Datasets under a prefix of an S3-compatible object store: ``s3://bucket/prefix`` in place of a folder.

Nobody holds a lock there. A commit is safe because Icechunk's writes are conditional: of two writers that began at the
same version one gets its tag and the other one begins anew on top of it. A catalogue, one more repository under the
prefix, knows the names, for a bucket has no folders that could be listed cheaply.

The environment says how to get there: the usual ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``,
``AWS_SESSION_TOKEN``, ``AWS_REGION``, ``AWS_ENDPOINT_URL``; ``LORE_S3_ANONYMOUS=1`` reads public buckets,
``LORE_S3_PATH_STYLE`` (0 or 1; by default 1 with an endpoint of one's own) says where the bucket stands in an address.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any

from lore_datasets.errors import Busy, ConfigError

__all__ = ["ATTEMPTS", "Bucket"]

ATTEMPTS = 20
"""Times that a writer begins anew when others commit to the same dataset meanwhile."""
_URL = re.compile(r"s3:/{1,2}(?P<bucket>[a-z0-9][a-z0-9.\-]{1,61}[a-z0-9])(?:/(?P<prefix>[\w.\-/]*))?", re.ASCII)
_CATALOGUE = ".catalogue"


@dataclass(frozen=True)
class Bucket:
    """A prefix of a bucket; stands where a folder of datasets does."""

    bucket: str
    prefix: str

    @staticmethod
    def parse(text: str) -> Bucket | None:
        """The bucket that a URL names, None when it is no S3 URL; ConfigError when it is a malformed one."""
        if not text.startswith("s3:"):
            return None
        match = _URL.fullmatch(text)
        if match is None or ".." in text:
            raise ConfigError.out_of_range("LORE_DATASETS", text, "a folder, or s3://bucket/prefix")
        return Bucket(match["bucket"], (match["prefix"] or "").strip("/"))

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def resolve(self) -> Bucket:
        """Itself: a URL means the same from everywhere."""
        return self

    def storage(self, name: str, suffix: str) -> Any:
        """The ``icechunk.Storage`` of dataset ``name``; plain http is for loopback alone."""
        import icechunk

        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None
        insecure = endpoint is not None and endpoint.startswith("http://")
        if endpoint and insecure and not re.match(r"http://(localhost|127\.[\d.]+|\[::1\])(:\d+)?/?$", endpoint):
            raise ConfigError("AWS_ENDPOINT_URL is not encrypted", hint="use https; http is for loopback alone")
        anonymous = os.environ.get("LORE_S3_ANONYMOUS", "0") not in ("", "0")
        return icechunk.s3_storage(
            bucket=self.bucket,
            prefix="/".join(part for part in (self.prefix, f"{name}{suffix}") if part),
            region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or None,
            endpoint_url=endpoint,
            allow_http=insecure,
            anonymous=anonymous or None,
            from_env=None if anonymous else True,
            force_path_style=os.environ.get("LORE_S3_PATH_STYLE", "1" if endpoint else "0") not in ("", "0"),
        )

    def names(self, suffix: str) -> list[str]:
        """Names in the catalogue, sorted."""
        import icechunk
        import zarr

        storage = self.storage(_CATALOGUE, suffix)
        if not icechunk.Repository.exists(storage):
            return []
        session = icechunk.Repository.open(storage).readonly_session("main")
        try:
            return sorted(zarr.open_group(session.store, mode="r").attrs)
        except FileNotFoundError:  # made, and nothing entered yet
            return []

    def enter(self, name: str, suffix: str) -> None:
        """Put ``name`` into the catalogue; Busy when others keep getting in first."""
        import icechunk
        import zarr

        if name in self.names(suffix):
            return
        repository = icechunk.Repository.open_or_create(self.storage(_CATALOGUE, suffix))
        for _ in range(ATTEMPTS):
            session = repository.writable_session("main")
            group = zarr.open_group(session.store, mode="a")
            if name in group.attrs:
                return
            group.attrs[name] = 1
            try:
                session.commit(f"enter {name}")
                return
            except icechunk.ConflictError:
                continue
        raise Busy(f"the catalogue of {self} is being written by others", kept="everything", hint="run again")
