"""Where oversize transactions wait for delivery: an unnamed temporary file.

It has no name, so nothing is left over however the process ends. Written and read on the event
loop: a row is copied into the page cache in microseconds, and reading is cut into segments.
"""

import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from heliograph.core.replication.oversize import Spill
from heliograph.errors import StorageError

_SIZE: Final = struct.Struct(">I")

#: Bytes written or read with one system call; smaller: more calls per row.
_BUFFER_BYTES: Final = 256 * 1024


class FileSpill:
    """A `Spill` in a temporary file: each record behind its size."""

    def __init__(self, folder: Path | None = None) -> None:
        """Create the file.

        Args:
            folder: Where; None stands for the system's folder for temporary files.

        Raises:
            StorageError: If it can not be created there.
        """
        try:
            self._file = tempfile.TemporaryFile(  # noqa: SIM115 - lives until discard
                dir=folder, buffering=_BUFFER_BYTES
            )
        except OSError as cause:
            raise _failed(cause) from cause

    def append(self, record: bytes) -> None:
        """Keep one record; see `Spill.append`."""
        try:
            self._file.write(_SIZE.pack(len(record)))
            self._file.write(record)
        except OSError as cause:
            raise _failed(cause) from cause

    def records(self) -> Iterator[bytes]:
        """Yield the records; see `RowRecords.records`."""
        try:
            self._file.flush()
            offset, block, place = 0, b"", 0
            while True:
                if len(block) - place < _SIZE.size:
                    offset, block, place = offset + place, self._read(offset + place), 0
                    if not block:
                        return
                (size,) = _SIZE.unpack_from(block, place)
                place += _SIZE.size
                if len(block) - place < size:
                    offset, block, place = offset + place, self._read(offset + place, size), 0
                yield block[place : place + size]
                place += size
        except (OSError, ValueError, struct.error) as cause:
            raise _failed(cause) from cause

    def _read(self, offset: int, size: int = 0) -> bytes:
        """Read a block that has at least ``size`` bytes; its place does not move others'."""
        block = os.pread(self._file.fileno(), max(size, _BUFFER_BYTES), offset)
        if len(block) < size:
            message = f"{size} bytes were written at {offset}, {len(block)} are there"
            raise OSError(message)
        return block

    def discard(self) -> None:
        """Close the file, and with it remove it."""
        self._file.close()


def spills_in(folder: Path | None) -> Callable[[], Spill]:
    """Return what makes spills in a folder; None stands for the system's temporary folder."""

    def make() -> Spill:
        return FileSpill(folder)

    return make


def _failed(cause: OSError | ValueError | struct.error) -> StorageError:
    message = f"the temporary file of an oversize transaction failed: {cause}"
    return StorageError(message)
