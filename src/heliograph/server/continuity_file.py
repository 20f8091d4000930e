"""The continuity record as a small file, one for each slot.

One line of ASCII. The position stands first, at a fixed width, and is overwritten in place: it is
with the operating system before any client is told a position, so that a killed process loses
nothing. Everything else changes rarely and replaces the whole file.
"""

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Final

import structlog

from heliograph.core.changelog.history import KnownHistory
from heliograph.core.replication.lsn import Lsn
from heliograph.errors import StorageError
from heliograph.ports.continuity_store import ContinuityRecord

_log = structlog.get_logger("heliograph.continuity")

_FORM: Final = "heliograph-continuity-1"
_READ_BYTES_MAX: Final = 4096
_SECRET_DIGITS_MIN: Final = 16


def continuity_path(folder: Path, slot_name: str) -> Path:
    """Return where the record of a slot stands."""
    return folder / f"{slot_name}.continuity"


class ContinuityFile:
    """Implements `ports.continuity_store.ContinuityStore` with a file."""

    def __init__(self, folder: Path, slot_name: str) -> None:
        """Make the folder if need be; nothing is read yet.

        Raises:
            StorageError: If the folder can not be made or written to.
        """
        self._path = continuity_path(folder, slot_name)
        self._descriptor: int | None = None
        self._has_failed = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as cause:
            message = f"the folder {folder} can not be written to: {cause.strerror}"
            raise StorageError(message) from cause

    @staticmethod
    def read(path: Path) -> ContinuityRecord | None:
        """Return what a file holds, and leave it alone; None if it is none of ours.

        Raises:
            OSError: If it can not be read.
        """
        with path.open("rb") as file:
            return _parse(file.read(_READ_BYTES_MAX))

    def load(self) -> ContinuityRecord | None:
        """Return what the file holds; None without one, or if it is none of ours."""
        try:
            record = self.read(self._path)
        except FileNotFoundError:
            return None
        except OSError as error:
            _log.warning("continuity_not_read", file=str(self._path), reason=error.strerror)
            return None
        if record is None:
            _log.warning("continuity_not_understood", file=str(self._path))
        else:
            self._open()
        return record

    def save(self, record: ContinuityRecord) -> None:
        """Replace the file; one that can not be replaced is removed, so that nobody believes it."""
        unfinished = self._path.with_suffix(".new")
        try:
            descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(_format(record))
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(self._path)
        except OSError as error:
            self._give_up(error)
            return
        self._open()

    def note_received(self, received: Lsn) -> None:
        """Overwrite the position."""
        if self._descriptor is None:
            return
        try:
            os.pwrite(self._descriptor, b"%016x" % received, 0)
        except OSError as error:
            self._give_up(error)

    def sync(self) -> None:
        """Write to disk."""
        descriptor = self._descriptor
        if descriptor is not None:
            with contextlib.suppress(OSError):  # closed meanwhile, or a disk that does not answer
                os.fdatasync(descriptor)

    def close(self) -> None:
        """Let go of the file."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _open(self) -> None:
        self.close()
        try:
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """Go on without; clients will be told `resync` after the next start."""
        if not self._has_failed:
            self._has_failed = True
            _log.error("continuity_not_written", file=str(self._path), reason=error.strerror)
        self.close()
        with contextlib.suppress(OSError):  # what is left is older than the slot, which shows
            self._path.unlink()


class ContinuityInMemory:
    """A `ContinuityStore` where nothing may be written: every start is a new epoch."""

    def load(self) -> ContinuityRecord | None:
        """Return nothing."""
        return None

    def save(self, record: ContinuityRecord) -> None:
        """Keep nothing."""

    def note_received(self, received: Lsn) -> None:
        """Keep nothing."""

    def sync(self) -> None:
        """Keep nothing."""


def _format(record: ContinuityRecord) -> bytes:
    history = record.history
    parts = (
        f"{history.received:016x}",
        _FORM,
        history.system_identifier,
        str(history.timeline),
        history.slot_name,
        record.nonce.hex(),
        record.key.hex(),
    )
    return (" ".join(parts) + "\n").encode("ascii")


def _parse(line: bytes) -> ContinuityRecord | None:
    try:
        received, form, system, timeline, slot_name, nonce, key = line.decode("ascii").split()
        if form != _FORM:
            return None
        if min(len(nonce), len(key)) < _SECRET_DIGITS_MIN:
            return None
        history = KnownHistory(system, int(timeline), slot_name, Lsn(int(received, 16)))
        return ContinuityRecord(history, bytes.fromhex(nonce), bytes.fromhex(key))
    except ValueError:
        return None
