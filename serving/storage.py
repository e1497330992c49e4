"""A folder behind a URL of fsspec (s3://, gs://, sftp://, file://, ...): what lies in it, fetched and put whole."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from datetime import datetime
from functools import cached_property
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from common.errors import UserError, reason_of
from common.files import PART, write_text

WHOLE = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci"})  # show an object when it is whole
STAMPS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "updated")  # of file systems' listings


class RemoteFolder:
    """Files below a URL, by their paths relative to it, with "/".

    Every method raises UserError where the URL cannot be reached, such as for want of a package or of rights.
    key: the flag that named the URL, for the errors.
    """

    def __init__(self, url: str, key: str) -> None:
        self.url, self.key = url.rstrip("/"), key

    def beside(self, what: str) -> "RemoteFolder":
        """The folder `URL_what`."""
        return RemoteFolder(f"{self.url}_{what}", self.key)

    def files(self) -> dict[str, dict[str, Any]]:
        """Relative path -> what the file system lists of a file; none where there is no such folder."""
        with self._telling():
            system, root = self._opened
            listed = system.find(root, detail=True)
        return {path.removeprefix(root).lstrip("/"): info for path, info in sorted(listed.items())}

    def fetch(self, relative: str, target: Path) -> None:
        """Copy a file to the disk. Raises OSError where it is not there (any more)."""
        system, root = self._opened
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._telling(OSError):
            system.get_file(f"{root}/{relative}", str(target))

    def put(self, source: Path, relative: str) -> None:
        """Copy a file from the disk, whole or not at all."""
        with self._telling():
            system, root = self._opened
            path = f"{root}/{relative}"
            protocols = {system.protocol} if isinstance(system.protocol, str) else set(system.protocol)
            if protocols & WHOLE:
                system.put_file(str(source), path)
                return
            folder, name = path.rsplit("/", 1)
            system.makedirs(folder, exist_ok=True)
            part = f"{folder}/{PART}{secrets.token_hex(8)}{PurePosixPath(name).suffix}"
            try:
                system.put_file(str(source), part)
                system.mv(part, path)
            except BaseException:
                with contextlib.suppress(Exception):
                    system.rm(part)
                raise

    def put_text(self, text: str, relative: str) -> None:
        """Write UTF-8 text, whole or not at all."""
        with TemporaryDirectory() as folder:
            file = Path(folder) / "text"
            write_text(file, text)
            self.put(file, relative)

    def read(self, relative: str) -> bytes:
        with self._telling():
            system, root = self._opened
            return system.cat_file(f"{root}/{relative}")

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        system, root = url_to_fs(self.url)
        return system, root.rstrip("/")

    @contextlib.contextmanager
    def _telling(self, passed: type[Exception] | tuple = ()) -> Iterator[None]:
        """Errors of the many libraries behind fsspec, as one line; those of type `passed` pass."""
        try:
            yield
        except passed:
            raise
        except Exception as error:
            raise UserError(
                f"{self.key}: expected a folder that can be reached, found {reason_of(error)}: {self.url}"
            ) from None


def is_url(place: str) -> bool:
    """Whether a place is named by a URL, such as s3://bucket/photos, and not by a path."""
    scheme, separator, _ = place.partition("://")
    return bool(separator) and scheme.replace("+", "").replace("-", "").replace(":", "").isalnum()


def stamp(info: dict[str, Any]) -> str:
    """What changes with a file, out of its entry in a listing."""
    return " ".join([str(info.get("size")), *(str(info[name]) for name in STAMPS if info.get(name))])


def set_time(path: Path, info: dict[str, Any]) -> None:
    """Give a fetched file the time of the original, where its entry in the listing has one."""
    for value in (info[name] for name in STAMPS if info.get(name)):
        seconds = value.timestamp() if isinstance(value, datetime) else value
        if isinstance(seconds, int | float):
            os.utime(path, (seconds, seconds))
            return
