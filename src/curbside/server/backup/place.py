"""Where backups lie: a folder, or an object store by its URL. Files are written once and never changed.

manifests/00000001     one for each backup
objects/ab/ab12…       named by the SHA-256 of their bytes
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Protocol

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import from_url

from curbside.errors import BackupRefused, ConfigError, CurbsideError, StorageFull, StoreUnavailable
from curbside.server.blob_store import map_object_error

MANIFESTS: Final = "manifests"
OBJECTS: Final = "objects"
_PART: Final = ".part"


class Place(Protocol):
    """Raises, everywhere: StoreUnavailable, StorageFull."""

    def read(self, name: str) -> bytes:
        """Raises: BackupRefused when it is not there."""
        ...

    def write_new(self, name: str, data: bytes) -> bool:
        """Make a file durable under a name that is free; False, and nothing done, when it is taken."""
        ...

    def list_names(self, prefix: str) -> dict[str, int]:
        """Names below a prefix, with their sizes."""
        ...

    def delete(self, names: Iterable[str]) -> None: ...


class FolderPlace:
    """Implements Place. The folder is made if it is not there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, name: str) -> bytes:
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError:
            raise BackupRefused(f"the backup lacks {name}") from None
        except OSError as error:
            raise StoreUnavailable(f"the backup cannot be read: {error.strerror}") from error

    def write_new(self, name: str, data: bytes) -> bool:
        path = self.folder / name
        part = path.with_name(path.name + _PART)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if not _give_name(part, path):
                return False
            _sync_folder(path.parent)
        except OSError as error:
            raise _map_error(error) from error
        return True

    def list_names(self, prefix: str) -> dict[str, int]:
        top = self.folder / prefix
        try:
            return {
                str(path.relative_to(self.folder)): path.stat().st_size
                for path in sorted(top.rglob("*"))
                if path.is_file() and path.suffix != _PART
            }
        except OSError as error:
            raise _map_error(error) from error

    def delete(self, names: Iterable[str]) -> None:
        for name in names:
            (self.folder / name).unlink(missing_ok=True)


class ObjectPlace:
    """Implements Place on an object store. Credentials come from the environment, as the store's library reads them."""

    def __init__(self, url: str) -> None:
        try:
            self._store = from_url(url)
        except (BaseError, ValueError) as error:
            raise ConfigError("the backup's URL cannot be used") from error

    def read(self, name: str) -> bytes:
        try:
            return bytes(obstore.get(self._store, name).bytes())
        except FileNotFoundError:
            raise BackupRefused(f"the backup lacks {name}") from None
        except (BaseError, OSError) as error:
            raise _map_object_error(error) from error

    def write_new(self, name: str, data: bytes) -> bool:
        try:
            obstore.put(self._store, name, data, mode="create", use_multipart=False)
        except AlreadyExistsError:
            return False
        except (BaseError, OSError) as error:
            raise _map_object_error(error) from error
        return True

    def list_names(self, prefix: str) -> dict[str, int]:
        try:
            return {str(each["path"]): int(each["size"]) for page in obstore.list(self._store, prefix) for each in page}
        except (BaseError, OSError) as error:
            raise _map_object_error(error) from error

    def delete(self, names: Iterable[str]) -> None:
        try:
            for name in names:
                obstore.delete(self._store, name)
        except (BaseError, OSError) as error:
            raise _map_object_error(error) from error


def open_place(where: str) -> Place:
    """where: a folder's path, or a URL such as s3://bucket/prefix. Raises: ConfigError."""
    if "://" in where:
        return ObjectPlace(where)
    return FolderPlace(Path(where))


def name_manifest(number: int) -> str:
    """The file of a backup's manifest."""
    return f"{MANIFESTS}/{number:08d}"


def name_object(digest: bytes) -> str:
    """The file of an object. digest: SHA-256 of its bytes."""
    return f"{OBJECTS}/{digest.hex()[:2]}/{digest.hex()}"


def _map_object_error(error: Exception) -> CurbsideError:
    mapped = map_object_error(error)
    return (
        mapped if isinstance(mapped, StorageFull) else StoreUnavailable("the backups' storage does not answer as asked")
    )


def _map_error(error: OSError) -> StorageFull | StoreUnavailable:
    full = {28, 27, 122}  # ENOSPC, EFBIG, EDQUOT
    return StorageFull() if error.errno in full else StoreUnavailable(f"the backup's folder: {error.strerror}")


def _give_name(part: Path, path: Path) -> bool:
    """Give a file its name if it is free; whether it was. Other machines' shares may have no hard links."""
    try:
        os.link(part, path)  # fails when the name is taken, which a rename does not
    except FileExistsError:
        part.unlink()
        return False
    except OSError:
        if path.exists():
            part.unlink()
            return False
        os.replace(part, path)
        return True
    part.unlink()
    return True


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
