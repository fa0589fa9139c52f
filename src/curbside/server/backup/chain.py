"""All backups of a place as a chain: each manifest names the one before by its hash.

Old backups may be removed from the front (`prune`); a hole, another order, or a manifest of another place or
organisation is refused. That newer backups were taken away from the end cannot be seen in the place itself: receipts,
kept elsewhere, show it.

    receipt   one line of JSON for each backup: its number, its time, the SHA-256 of its manifest
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from curbside.audit.checkpoint import VerifierKey
from curbside.errors import BackupRefused, ConfigError
from curbside.server.backup.place import MANIFESTS, OBJECTS, Place, name_manifest, name_object
from curbside.server.backup.sealing import Manifest, parse_manifest, verify_manifest

_NAME: Final = re.compile(rf"{MANIFESTS}/([0-9]{{8,}})\Z")


class Receipt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """That a backup was made. created_at: Unix seconds. manifest: hex."""

    number: int
    created_at: int
    manifest: str


@dataclass(frozen=True, slots=True)
class Chain:
    """Backups, oldest first; at least one. is_pinned: the signing key was known from elsewhere."""

    manifests: tuple[Manifest, ...]
    signer: VerifierKey
    is_pinned: bool

    @property
    def newest(self) -> Manifest:
        """The last one."""
        return self.manifests[-1]

    def get(self, number: int | None) -> Manifest:
        """The backup of this number, the newest for None. Raises: BackupRefused."""
        if number is None:
            return self.newest
        for manifest in self.manifests:
            if manifest.head.number == number:
                return manifest
        raise BackupRefused(f"there is no backup with the number {number}")


def find_chain(place: Place, pinned: VerifierKey | None, receipts: Sequence[Receipt] = ()) -> Chain | None:
    """The backups of a place, verified but for their objects; None when there are none and no receipt says otherwise.

    Raises: BackupRefused; StoreUnavailable.
    """
    numbers = sorted(int(match[1]) for name in place.list_names(MANIFESTS) if (match := _NAME.match(name)))
    if not numbers:
        if receipts:
            raise BackupRefused("receipts tell of backups that are not here")
        return None
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        raise BackupRefused("a backup is missing between others")
    manifests: list[Manifest] = []
    signer = pinned
    for number in numbers:
        manifest = parse_manifest(place.read(name_manifest(number)))
        signer = verify_manifest(manifest, signer)
        _check_link(manifests[-1] if manifests else None, manifest, number)
        manifests.append(manifest)
    assert signer is not None
    chain = Chain(tuple(manifests), signer, pinned is not None)
    check_receipts(chain, receipts)
    return chain


def get_chain(place: Place, pinned: VerifierKey | None, receipts: Sequence[Receipt] = ()) -> Chain:
    """As `find_chain`. Raises: ConfigError when there is no backup; BackupRefused; StoreUnavailable."""
    chain = find_chain(place, pinned, receipts)
    if chain is None:
        raise ConfigError("there is no backup in this place")
    return chain


def _check_link(before: Manifest | None, manifest: Manifest, number: int) -> None:
    head = manifest.head
    if head.number != number:
        raise BackupRefused("a backup stands under another one's number")
    if before is None:
        if (number == 1) != (head.previous == b""):
            raise BackupRefused("the first backup does not begin a chain")
        return
    if head.place_id != before.head.place_id:
        raise BackupRefused("a backup is of another place")
    if head.previous != before.digest:
        raise BackupRefused("a backup does not follow the one before it")


# --- receipts ---------------------------------------------------------------------------------


def make_receipt(manifest: Manifest) -> Receipt:
    """What to keep elsewhere of a backup."""
    return Receipt(manifest.head.number, manifest.head.created_at, manifest.digest.hex())


def read_receipts(path: Path) -> list[Receipt]:
    """The receipts of a file; none when there is no such file yet. Raises: ConfigError."""
    try:
        return [msgspec.json.decode(line, type=Receipt) for line in path.read_bytes().splitlines() if line.strip()]
    except FileNotFoundError:
        return []
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(f"{path} is no file of receipts") from error


def check_receipts(chain: Chain, receipts: Sequence[Receipt]) -> None:
    """Raises: BackupRefused when a receipt tells of a backup that is newer than all here, or of another one."""
    held = {manifest.head.number: manifest.digest.hex() for manifest in chain.manifests}
    for receipt in receipts:
        if receipt.number > chain.newest.head.number:
            raise BackupRefused(f"rolled back: there was a backup with the number {receipt.number}")
        if held.get(receipt.number, receipt.manifest) != receipt.manifest:
            raise BackupRefused(f"backup {receipt.number} is not the one of its receipt")


# --- pruning ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pruned:
    """What went, and which backups stay."""

    backups: int
    objects: int
    bytes: int
    kept: int


def prune(place: Place, chain: Chain, before: int) -> Pruned:
    """Remove the backups made before then (Unix seconds), but never the newest one, and objects that none needs.

    No backup may be under way: objects of one that has no manifest yet would go. Raises: StoreUnavailable.
    """
    gone = [each for each in chain.manifests[:-1] if each.head.created_at < before]
    gone = gone[: next((at for at, each in enumerate(chain.manifests) if each not in gone), len(gone))]
    kept = chain.manifests[len(gone) :]
    place.delete([name_manifest(each.head.number) for each in gone])
    needed = {name_object(digest) for each in kept for digest in each.head.objects}
    unneeded = {name: size for name, size in place.list_names(OBJECTS).items() if name not in needed}
    place.delete(unneeded)
    return Pruned(len(gone), len(unneeded), sum(unneeded.values()), len(kept))
