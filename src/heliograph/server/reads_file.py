"""What judging each table's rows was found to read, as a small file, one for each slot."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

import msgspec
import structlog

from heliograph import limits

_log = structlog.get_logger("heliograph.continuity")

_DECODER: Final = msgspec.json.Decoder(dict[int, set[int]])


class ReadsFile:
    """Implements `ports.reads_store.ReadsStore` with a file of JSON: table oid to oids read."""

    def __init__(self, folder: Path, slot_name: str) -> None:
        """Name the file; its folder exists."""
        self._path = folder / f"{slot_name}.reads.json"

    def load(self) -> dict[int, set[int]]:
        """Return what the file holds; nothing without one, or if it is none of ours."""
        try:
            with self._path.open("rb") as file:
                return _DECODER.decode(file.read(limits.READS_FILE_BYTES_MAX))
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            _log.warning("reads_not_read", file=str(self._path), reason=type(error).__name__)
            return {}

    def save(self, reads: Mapping[int, Collection[int]]) -> None:
        """Replace the file. If that fails the older one stays, which costs clients a load."""
        unfinished = self._path.with_suffix(".new")
        try:
            unfinished.write_bytes(msgspec.json.encode(reads))
            unfinished.replace(self._path)
        except OSError as error:
            _log.warning("reads_not_written", file=str(self._path), reason=error.strerror)


class ReadsInMemory:
    """A `ReadsStore` where nothing may be written."""

    def load(self) -> dict[int, set[int]]:
        """Return nothing."""
        return {}

    def save(self, reads: Mapping[int, Collection[int]]) -> None:
        """Keep nothing."""
