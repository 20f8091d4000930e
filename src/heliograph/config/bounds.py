"""The bounds an operator may change; their defaults and reasons stand in ``limits.py``."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final

from heliograph import limits
from heliograph.config.setting import Setting
from heliograph.config.values import integer_parser, seconds_parser

_GIB: Final = 1024**3
_DAY_S: Final = 86_400.0


def _bound(constant: str, meaning: str, unit: str, parse: Callable[[str], object]) -> Setting:
    return Setting(variable=f"HELIOGRAPH_{constant}", meaning=meaning, parse=parse, unit=unit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Bounds of one server process; each field is the lower-case name of a constant."""

    ring_bytes_max: Annotated[
        int,
        _bound(
            "RING_BYTES_MAX",
            "Memory of the ring of committed transactions.",
            "bytes",
            integer_parser(1024**2, 64 * _GIB),
        ),
    ] = limits.RING_BYTES_MAX
    ring_transactions_max: Annotated[
        int,
        _bound(
            "RING_TRANSACTIONS_MAX",
            "Transactions kept in the ring.",
            "transactions",
            integer_parser(1, 50_000_000),
        ),
    ] = limits.RING_TRANSACTIONS_MAX
    ring_age_s_max: Annotated[
        float,
        _bound(
            "RING_AGE_S_MAX",
            "Age of the oldest transaction in the ring.",
            "seconds",
            seconds_parser(1, _DAY_S),
        ),
    ] = limits.RING_AGE_S_MAX
    slot_wal_bytes_max: Annotated[
        int,
        _bound(
            "SLOT_WAL_BYTES_MAX",
            "WAL that the slot may hold back before the server drops it, so that the disk of the"
            " database does not fill, and clients load anew; 0: never.",
            "bytes",
            integer_parser(0, 1024 * _GIB),
        ),
    ] = limits.SLOT_WAL_BYTES_MAX
    message_bytes_max: Annotated[
        int,
        _bound(
            "MESSAGE_BYTES_MAX",
            "Size of one message from a client.",
            "bytes",
            integer_parser(1024, limits.MESSAGE_BYTES_HARD_MAX),
        ),
    ] = limits.MESSAGE_BYTES_MAX
    channels_per_socket_max: Annotated[
        int,
        _bound(
            "CHANNELS_PER_SOCKET_MAX",
            "Channels that one socket may join.",
            "channels",
            integer_parser(1, 100_000),
        ),
    ] = limits.CHANNELS_PER_SOCKET_MAX
    joins_per_second_max: Annotated[
        int,
        _bound(
            "JOINS_PER_SECOND_MAX",
            "Joins of one socket, also the burst.",
            "per second",
            integer_parser(1, 1_000_000),
        ),
    ] = limits.JOINS_PER_SECOND_MAX
    messages_per_second_max: Annotated[
        int,
        _bound(
            "MESSAGES_PER_SECOND_MAX",
            "Pushes (`broadcast`, `presence`) from one socket, also the burst; one more ends its"
            " channel. Row changes never count.",
            "per second",
            integer_parser(1, 1_000_000),
        ),
    ] = limits.MESSAGES_PER_SECOND_MAX
    connections_max: Annotated[
        int,
        _bound(
            "CONNECTIONS_MAX",
            "Open WebSockets of the process. The limit of open files must be higher.",
            "sockets",
            integer_parser(1, 10_000_000),
        ),
    ] = limits.CONNECTIONS_MAX
    write_deadline_s: Annotated[
        float,
        _bound(
            "WRITE_DEADLINE_S",
            "Time in which a client takes nothing of what waits before it is closed (3008).",
            "seconds",
            seconds_parser(0.1, 600),
        ),
    ] = limits.WRITE_DEADLINE_S
    judgement_timeout_s: Annotated[
        float,
        _bound(
            "JUDGEMENT_TIMEOUT_S",
            "Time of one statement that judges row versions.",
            "seconds",
            seconds_parser(0.01, 60),
        ),
    ] = limits.JUDGEMENT_TIMEOUT_S
    judgement_connections_max: Annotated[
        int,
        _bound(
            "JUDGEMENT_CONNECTIONS_MAX",
            "Database connections that judge row versions.",
            "connections",
            integer_parser(1, 100),
        ),
    ] = limits.JUDGEMENT_CONNECTIONS_MAX
    outbound_bytes_low: Annotated[
        int,
        _bound(
            "OUTBOUND_BYTES_LOW",
            "Waiting bytes of a socket at which a lagging one is fed again.",
            "bytes",
            integer_parser(1024, _GIB),
        ),
    ] = limits.OUTBOUND_BYTES_LOW
    outbound_bytes_high: Annotated[
        int,
        _bound(
            "OUTBOUND_BYTES_HIGH",
            "Waiting bytes of a socket above which its channels read from the ring.",
            "bytes",
            integer_parser(1024, _GIB),
        ),
    ] = limits.OUTBOUND_BYTES_HIGH
    outbound_bytes_max: Annotated[
        int,
        _bound(
            "OUTBOUND_BYTES_MAX",
            "Waiting bytes of a socket at which it is closed.",
            "bytes",
            integer_parser(1024, _GIB),
        ),
    ] = limits.OUTBOUND_BYTES_MAX
    outbound_bytes_total_max: Annotated[
        int,
        _bound(
            "OUTBOUND_BYTES_TOTAL_MAX",
            "Waiting bytes of all sockets together at which the slowest are closed (3008).",
            "bytes",
            integer_parser(1024, 1024 * _GIB),
        ),
    ] = limits.OUTBOUND_BYTES_TOTAL_MAX

    def problems(self) -> dict[str, str]:
        """Return one line for each group of bounds that contradict each other, by a field."""
        found: dict[str, str] = {}
        if 0 < self.slot_wal_bytes_max < limits.SLOT_WAL_BYTES_MIN:
            found["slot_wal_bytes_max"] = (
                "HELIOGRAPH_SLOT_WAL_BYTES_MAX: expected 0, or at least"
                f" {limits.SLOT_WAL_BYTES_MIN}; found {self.slot_wal_bytes_max}"
            )
        if not self.outbound_bytes_low < self.outbound_bytes_high < self.outbound_bytes_max:
            found["outbound_bytes_high"] = (
                "HELIOGRAPH_OUTBOUND_BYTES_LOW, _HIGH and _MAX: expected LOW < HIGH < MAX; found"
                f" {self.outbound_bytes_low}, {self.outbound_bytes_high},"
                f" {self.outbound_bytes_max}"
            )
        if self.outbound_bytes_total_max < self.outbound_bytes_max:
            found["outbound_bytes_total_max"] = (
                "HELIOGRAPH_OUTBOUND_BYTES_TOTAL_MAX: expected at least"
                f" HELIOGRAPH_OUTBOUND_BYTES_MAX, which is {self.outbound_bytes_max}; found"
                f" {self.outbound_bytes_total_max}"
            )
        return found
