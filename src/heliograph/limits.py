"""Every bound of Heliograph: name, unit, default and why that number.

A bound that may be set by the operator is a field of a settings class in ``config.py`` whose
default stands here. The comment above a constant says what happens if it is larger or smaller;
it is printed in the generated reference (docs/reference/limits.md).
"""

from typing import Final

# --- Replication reader --------------------------------------------------------------------

#: Seconds between two standby status messages at the most. Larger: one missed beat may end the
#: connection (PostgreSQL drops a silent reader after wal_sender_timeout, 60 s by default).
#: The effective value is min(this, wal_sender_timeout / 3).
STANDBY_STATUS_INTERVAL_S: Final = 10.0

#: First and last wait between two attempts to reconnect the reader, in seconds. The wait doubles.
#: Smaller: a database that restarts is hammered. Larger: changes arrive late after a restart.
RECONNECT_WAIT_FIRST_S: Final = 0.05
RECONNECT_WAIT_LAST_S: Final = 5.0

#: Bytes of WAL payload that one transaction may keep in memory. A larger one is written to a
#: temporary file and handed on in segments. Larger: memory; smaller: more transactions use disk.
TRANSACTION_BYTES_IN_MEMORY_MAX: Final = 16 * 1024 * 1024

#: Row changes in one segment of an oversize transaction; bounds the memory of one step.
OVERSIZE_SEGMENT_ROWS_MAX: Final = 2_000

#: Keys with more than one version that an oversize transaction may hold while it is folded.
#: Above it the tables of the transaction are told `resync` instead.
OVERSIZE_REPEATED_KEYS_MAX: Final = 200_000

# --- Change log (ring) ---------------------------------------------------------------------

#: Bytes of transactions kept for late or slow subscribers. Larger: longer catch-up, more memory.
RING_BYTES_MAX: Final = 256 * 1024 * 1024

#: Transactions kept; bounds the bookkeeping per transaction (about 300 bytes each).
RING_TRANSACTIONS_MAX: Final = 500_000

#: Age in seconds of the oldest transaction kept.
RING_AGE_S_MAX: Final = 600.0

# --- Judgement -----------------------------------------------------------------------------

#: Row versions judged by one SQL statement. Measured: 1.5-3 µs per (row, claims) at 100 against
#: about 90 at 1; beyond some hundreds only the latency grows.
JUDGEMENT_BATCH_ROWS_MAX: Final = 200

#: Seconds one judgement statement may take before PostgreSQL cancels it (S18).
JUDGEMENT_TIMEOUT_S: Final = 1.0

#: Connections that judge. Two cores profit from a few; each costs PostgreSQL about 10 MB.
JUDGEMENT_CONNECTIONS_MAX: Final = 4

#: Attempts of one judgement whose snapshot does not yet see the transaction, before `resync`.
JUDGEMENT_ATTEMPTS_MAX: Final = 20

#: Judgements in a row that may time out before the subscriber is closed.
JUDGEMENT_TIMEOUTS_IN_A_ROW_MAX: Final = 5

#: Row changes that may wait for one audience (role and claims) before it reads from the ring.
LANE_PENDING_CHANGES_MAX: Final = 5_000

#: Bytes of row changes that may wait for one audience before it reads from the ring.
LANE_PENDING_BYTES_MAX: Final = 8 * 1024 * 1024

#: Seconds of age after which the cached description of a table is compared with the catalog.
CATALOG_CHECK_INTERVAL_S: Final = 2.0

#: Bytes of one `data` object above which values longer than 64 bytes are left out and the change
#: carries `Error 413: Payload Too Large`, as in Supabase Realtime.
CHANGE_DATA_BYTES_MAX: Final = 1024 * 1024
CHANGE_VALUE_BYTES_KEPT: Final = 64

# --- Subscriptions and filters -------------------------------------------------------------

#: Values in one `in` filter, as in Supabase Realtime.
FILTER_IN_VALUES_MAX: Final = 100

#: Bytes of one filter string; longer ones are refused before they are parsed.
FILTER_BYTES_MAX: Final = 16 * 1024

#: `postgres_changes` entries in one join.
BINDINGS_PER_CHANNEL_MAX: Final = 1_000

# --- WebSocket and channels ----------------------------------------------------------------

#: Bytes of one message a client may send; 5,000,000 is Supabase's hard cap, 1 MiB our default.
MESSAGE_BYTES_MAX: Final = 1024 * 1024
MESSAGE_BYTES_HARD_MAX: Final = 5_000_000

#: Depth of nested JSON in a client's message.
JSON_DEPTH_MAX: Final = 64

#: Bytes waiting in the outbound buffer of one connection before its channels read from the ring.
OUTBOUND_BYTES_HIGH: Final = 1024 * 1024
#: Bytes at which a lagging connection is fed again.
OUTBOUND_BYTES_LOW: Final = 256 * 1024
#: Bytes at which a connection is closed whatever its deadline says.
OUTBOUND_BYTES_MAX: Final = 8 * 1024 * 1024
#: Seconds without any progress of a full outbound buffer before the connection is closed (3008).
WRITE_DEADLINE_S: Final = 10.0

#: Seconds for the HTTP upgrade, and for the first join after it (S29).
HANDSHAKE_DEADLINE_S: Final = 10.0
JOIN_DEADLINE_S: Final = 10.0
#: Seconds of silence after which a socket is closed, as in Supabase Realtime.
SOCKET_SILENCE_S: Final = 60.0

#: Per socket: channels, joins per second (and burst), messages per second (and burst).
CHANNELS_PER_SOCKET_MAX: Final = 100
JOINS_PER_SECOND_MAX: Final = 100
MESSAGES_PER_SECOND_MAX: Final = 100

#: Open WebSockets of one server process.
CONNECTIONS_MAX: Final = 20_000

#: Characters of a topic and of a ref.
TOPIC_CHARACTERS_MAX: Final = 255
REF_CHARACTERS_MAX: Final = 64

# --- Tokens --------------------------------------------------------------------------------

#: Bytes of one token. PostgreSQL settings and headers stay small; JWTs of real issuers are < 4 KB.
TOKEN_BYTES_MAX: Final = 8 * 1024
#: Seconds that clocks may differ when `exp` and `nbf` are checked.
TOKEN_LEEWAY_S: Final = 5.0
#: Seconds between two checks of a channel's token, as in Supabase Realtime.
TOKEN_CHECK_INTERVAL_S: Final = 300.0
