"""Every bound of Heliograph: name, unit, default and why that number.

A bound that may be set by the operator is a field of `config.bounds.Bounds` whose default stands
here. The comment above a constant says what happens if it is larger or smaller;
it is printed in the generated reference (docs/reference/limits.md).
"""

from typing import Final

# --- Replication reader --------------------------------------------------------------------

#: Seconds between two standby status messages at the most. Larger: one missed beat may end the
#: connection (PostgreSQL drops a silent reader after wal_sender_timeout, 60 s by default).
#: The effective value is min(this, wal_sender_timeout / 3).
STANDBY_STATUS_INTERVAL_S: Final = 10.0

#: Statuses that PostgreSQL may ask for between two that are sent unasked. It asks after half of its
#: timeout, so never; while it is shut down it asks again after every answer, and does not end
#: before the slot has confirmed all: then we let go of it. Larger: it waits a little longer.
STATUS_QUESTIONS_MAX: Final = 10

#: First and last wait between two attempts to reconnect the reader, in seconds. The wait doubles.
#: Smaller: a database that restarts is hammered. Larger: changes arrive late after a restart.
RECONNECT_WAIT_FIRST_S: Final = 0.05
RECONNECT_WAIT_LAST_S: Final = 5.0

#: Seconds for one answer while the replication connection is set up. A slot that decodes its way
#: through a large backlog answers late, but START_REPLICATION itself does not wait for that.
REPLICATION_ANSWER_TIMEOUT_S: Final = 10.0

#: Frames handled before other tasks get their turn: about 2 ms of work. Larger: sockets wait
#: longer while a backlog is read; smaller: more overhead per frame.
FRAMES_PER_TURN_MAX: Final = 500

#: Multiples of wal_sender_timeout without anything from the server before the link is given up.
#: The server answers each of our statuses, so silence means that it is gone.
SILENT_LINK_TIMEOUTS: Final = 2

#: Multiples of our status interval without a status from the holder of our slot, before it is
#: believed dead and its backend is terminated. Below 2 one late status would be enough.
SLOT_HOLDER_SILENT_INTERVALS: Final = 2.5

#: Seconds between two looks at a slot that is being created or held by somebody else. Creation
#: waits for every transaction that is writing.
SLOT_WATCH_INTERVAL_S: Final = 1.0

#: Seconds between two polls where replication connections are forbidden. Smaller: more load;
#: larger: changes arrive later (on average half of it).
POLL_INTERVAL_S: Final = 0.05

#: Changes fetched by one poll at least; whole transactions, so one large one may exceed it.
POLL_CHANGES_MAX: Final = 10_000

#: Rows fetched at a time from one poll; bounds the memory of a poll that meets a large one.
POLL_FETCH_ROWS: Final = 2_000

#: Seconds between two confirmations of a polled slot. Each makes PostgreSQL decode again.
POLL_CONFIRM_INTERVAL_S: Final = 1.0

#: Seconds for one poll. PostgreSQL decodes everything since the confirmed position for each.
POLL_TIMEOUT_S: Final = 120.0

#: Bytes of WAL payload that one transaction may keep in memory. A larger one is written to a
#: temporary file and handed on in segments. Larger: memory; smaller: more transactions use disk.
TRANSACTION_BYTES_IN_MEMORY_MAX: Final = 16 * 1024 * 1024

#: Row changes in one segment of an oversize transaction; bounds the memory of one step.
OVERSIZE_SEGMENT_ROWS_MAX: Final = 2_000

#: Bytes of WAL payload in one such segment. Frames are some two to four times as long: a connection
#: that keeps up must have room for one segment (OUTBOUND_BYTES_HIGH).
OVERSIZE_SEGMENT_BYTES_MAX: Final = 128 * 1024

#: Row changes of a transaction in memory above which it is handed on in such segments, too.
#: Larger: others wait while one transaction is decoded and matched, and all is judged at once.
TRANSACTION_ROWS_AT_ONCE_MAX: Final = 2_000

#: Seconds that one segment waits for a connection without room that was in step until then. Only
#: clients of the same role and claims wait for it.
OVERSIZE_SEGMENT_WAIT_S: Final = 0.5

#: Seconds that all segments of one transaction together may wait for such connections. Those that
#: have no room by then read the rest of it for themselves, at their own pace.
OVERSIZE_WAIT_S: Final = 2.0

#: Oversize transactions kept on disk for those who still read them, and for how many seconds.
#: More, or later: the oldest one is removed, and who still reads it is told `resync`.
OVERSIZE_KEPT_MAX: Final = 8
OVERSIZE_KEPT_S_MAX: Final = 600.0

#: Keys with more than one version that an oversize transaction may hold while it is folded.
#: Above it the tables of the transaction are told `resync` instead.
OVERSIZE_REPEATED_KEYS_MAX: Final = 200_000

#: Bytes of row versions of such keys that may be held; above it `resync`, as above.
OVERSIZE_REPEATED_BYTES_MAX: Final = 64 * 1024 * 1024

#: Bits of the bitmap that finds repeated keys of an oversize transaction (16 MiB while one is
#: folded). At 10 million rows it suspects about 1 % of the keys wrongly; smaller: more rows are
#: held back until the end of the transaction.
OVERSIZE_KEY_BITMAP_BITS: Final = 128 * 1024 * 1024

#: Bytes of WAL payload that one transaction may take on disk; above it `resync`, as above.
OVERSIZE_SPILL_BYTES_MAX: Final = 8 * 1024 * 1024 * 1024

#: Bytes of transactional messages (``pg_logical_emit_message``) that one transaction may keep in
#: memory. Ours are below 1 kB each; any role may emit others.
TRANSACTION_MESSAGES_BYTES_MAX: Final = 1024 * 1024

#: Table descriptions that one replication connection may send; each takes some kilobytes.
RELATIONS_MAX: Final = 50_000

#: Readers of rows kept, one for each version of a table and choice of its key. Above it they are
#: made anew, some microseconds each; larger: some kilobytes of memory each.
ROW_READERS_MAX: Final = 1_000

# --- Change log (ring) ---------------------------------------------------------------------

#: Bytes of transactions kept for late or slow subscribers. Larger: longer catch-up, more memory.
RING_BYTES_MAX: Final = 256 * 1024 * 1024

#: Transactions kept; bounds the bookkeeping per transaction (RING_TRANSACTION_OVERHEAD_BYTES each).
RING_TRANSACTIONS_MAX: Final = 500_000

#: Bytes counted for the bookkeeping of one transaction in the ring, on top of its rows. Measured:
#: 330 to 400 with one table; smaller: the ring takes more memory than RING_BYTES_MAX says.
RING_TRANSACTION_OVERHEAD_BYTES: Final = 400

#: Age in seconds of the oldest transaction kept.
RING_AGE_S_MAX: Final = 600.0

#: Seconds between two looks for what is too old while nothing is appended, and between two lines
#: of the log about the same reason of `resync`. Larger: an idle server keeps the values of rows so
#: much longer than RING_AGE_S_MAX.
RING_AGE_CHECK_INTERVAL_S: Final = 1.0

#: The last transactions received, their bytes and the WAL that the slot holds back for them, so
#: that a restart gets them again and fills the ring anew; as long as RING_AGE_S_MAX. What replay
#: costs is measured by `make bench NAME=resume`: some three seconds for the largest of each.
#: Larger: a start takes longer until changes flow. Smaller: fewer clients can go on where they were
#: after it.
SLOT_TRAIL_TRANSACTIONS_MAX: Final = 100_000
SLOT_TRAIL_BYTES_MAX: Final = 64 * 1024 * 1024
SLOT_TRAIL_WAL_BYTES_MAX: Final = 128 * 1024 * 1024

#: Part of what the slot may hold back at all (`max_slot_wal_keep_size`, SLOT_WAL_BYTES_MAX) that it
#: may hold back for that; half of it raises the alarm.
SLOT_TRAIL_WAL_SHARE_MAX: Final = 0.25

#: WAL that our slot may hold back before the server drops it and has every client load anew; 0 for
#: no such limit, and the least that may be set. `max_slot_wal_keep_size` does the same while the
#: server is stopped, too, so this is for databases where nobody may set it. Larger: more of the
#: disk; smaller: a transaction that is open for long, or a reader that is behind, costs the slot.
SLOT_WAL_BYTES_MAX: Final = 0
SLOT_WAL_BYTES_MIN: Final = 64 * 1024 * 1024

#: Seconds between two writes to disk of how far the stream was received. The operating system has
#: it at once, so only a crash of the whole machine can lose as much.
CONTINUITY_SYNC_INTERVAL_S: Final = 1.0

#: Bytes of the file that says what judging each table reads; a longer one is not believed.
READS_FILE_BYTES_MAX: Final = 16 * 1024 * 1024

#: Transactions, and bytes of them, that may wait while one before them is prepared; above that the
#: reader pauses. A judgement waits for the stream, so that a pause longer than a few seconds makes
#: `resync` of what is judged meanwhile; larger: more memory.
INBOX_TRANSACTIONS_MAX: Final = 100_000
INBOX_BYTES_MAX: Final = 64 * 1024 * 1024

#: Waiting transactions dispatched before other tasks get their turn. Larger: sockets wait longer
#: while a queue is worked off; smaller: more overhead per transaction.
DISPATCHED_PER_TURN_MAX: Final = 500

#: Transactions that an overflown lane takes from the ring at once. Larger: more decoded rows in
#: memory for each such lane; smaller: the tables' index is searched more often.
REFILL_TRANSACTIONS_MAX: Final = 128

#: Channels that read the ring at once, those under slow policies or filters apart; the others wait
#: for their turn. Half of what JUDGEMENT_CONNECTIONS_MAX allows at once, so that thousands of
#: clients which come back together do not hold up those who never left. Larger: live changes wait
#: longer meanwhile; smaller: PostgreSQL idles between two of them.
CATCH_UPS_AT_ONCE_MAX: Final = 3

#: Transactions matched for such a channel before other tasks get their turn. Larger: sockets wait
#: longer while many clients catch up; smaller: more overhead per transaction.
CATCH_UP_TRANSACTIONS_PER_TURN: Final = 50

#: Rows, and bytes of their transactions, that are kept decoded for the next channel that reads the
#: same part of the ring. Measured: three quarters of the processor time for rows of six columns.
#: Larger: more memory, some 2 KB for each row; smaller: those who catch up decode for themselves.
SHARED_ROWS_MAX: Final = 4_000
SHARED_BYTES_MAX: Final = 4 * 1024 * 1024

#: Seconds between two looks at what not everybody's snapshot sees yet. Larger: each judgement looks
#: through more transactions; smaller: more queries on a busy server.
SETTLE_INTERVAL_S: Final = 0.25

# --- Judgement -----------------------------------------------------------------------------

#: Row versions judged by one SQL statement. Measured for the statement alone: 1.5-3 µs per (row,
#: claims) at 100 against about 90 at 1; beyond some hundreds only the latency grows.
JUDGEMENT_BATCH_ROWS_MAX: Final = 200

#: Seconds one judgement statement may take before PostgreSQL cancels it (S18).
JUDGEMENT_TIMEOUT_S: Final = 1.0

#: Multiples of JUDGEMENT_TIMEOUT_S that a judgement waits for a connection. Larger: while all are
#: busy its subscribers learn later that they must read again; smaller: a short rush is `resync`.
JUDGEMENT_CONNECTION_TIMEOUTS_MAX: Final = 5

#: Multiples of JUDGEMENT_TIMEOUT_S that a judgement may take once it has a connection: several
#: statements, or many round trips where rows raise. Larger: a slow policy that also raises keeps a
#: connection for longer; smaller: large transactions under a slow policy are `resync`.
JUDGEMENT_STATEMENT_TIMEOUTS_MAX: Final = 10

#: Seconds in which the first judging connection must be open. Smaller: a busy PostgreSQL fails the
#: start; larger: a refused login is reported late.
JUDGE_OPEN_TIMEOUT_S: Final = 10.0

#: Connections that judge. Two cores profit from a few; each costs PostgreSQL about 10 MB.
JUDGEMENT_CONNECTIONS_MAX: Final = 6

#: Share of them, at least one, that joins may hold to check filters and policies, and the same
#: again for slow judgements. Larger: a client that joins without end, or chooses slow filters,
#: leaves too few for the others; smaller: many joins at once, and large transactions, take longer.
JUDGEMENT_CONNECTIONS_SHARE_MAX: Final = 1 / 3

#: What counts as a slow judgement: the last one of the audience took longer than so many seconds,
#: or it asks about more rows. One with an expression that a client chose counts always. Larger: it
#: may hold a connection for which others wait.
JUDGEMENT_SLOW_S: Final = 0.1
JUDGEMENT_SLOW_ROWS: Final = 2 * JUDGEMENT_BATCH_ROWS_MAX

#: Slow judgements of who has used less come first (`postgres.fair_gate`). Seconds after which half
#: of what was used is forgotten: longer, and a burst counts against its user for longer; shorter,
#: and who always asks for slow ones comes as early as others. And keys for which it is remembered,
#: about 200 bytes each; beyond, those who used least are forgotten.
FAIR_GATE_HALF_LIFE_S: Final = 60.0
FAIR_GATE_KEYS_MAX: Final = 10_000

#: Attempts of one judgement whose snapshot does not yet see the transaction, before `resync`.
JUDGEMENT_ATTEMPTS_MAX: Final = 20

#: First and last wait before such an attempt, in seconds. The wait doubles. Smaller: more queries
#: for nothing; larger: changes arrive late where commits become visible late.
JUDGEMENT_REPEAT_WAIT_FIRST_S: Final = 0.0005
JUDGEMENT_REPEAT_WAIT_LAST_S: Final = 0.25

#: Seconds to wait until the stream has passed the moment of a judgement, or of a reading of the
#: catalog. It is asked and nudged, so waiting longer is a fault: `resync`.
STREAM_WAIT_S: Final = 5.0

#: Seconds until the stream is nudged by a written transaction. Smaller: needless writes on a busy
#: server. Larger: with writers that commit asynchronously every judgement waits this long.
NUDGE_AFTER_S: Final = 0.004

#: Changes of rights kept per relation. Larger: judgements that lag further can still be decided
#: exactly; one whose change is older than the oldest entry counts as changed.
RIGHTS_LOG_ENTRIES_MAX: Final = 1_024

#: Seconds between two attempts to read the catalog while the database does not answer. Everything
#: that commits meanwhile waits as long; smaller: a database that restarts is hammered.
CATALOG_RETRY_S: Final = 0.2

#: Readings of the catalog for one transaction, if definitions change meanwhile. Fewer: `resync`
#: sooner; more: everything behind the transaction waits longer.
CATALOG_READINGS_MAX: Final = 3

#: Seconds that the look at a new partition waits for its lock before the partition counts as one
#: with rows. Larger: joins wait as long behind it; smaller: needless `resync`.
PARTITION_LOCK_TIMEOUT_S: Final = 0.1

#: Different errors of policies that are logged, each once; all are counted. More: policies that
#: fail in many ways fill the log.
ROW_ERRORS_LOGGED_MAX: Final = 1_000

#: Judgements in a row that may time out before the subscriber is closed.
JUDGEMENT_TIMEOUTS_IN_A_ROW_MAX: Final = 5

#: Seconds between a commit and its judgement within which a policy is trusted although it reads a
#: table that can not be followed. Larger: a grant in such a table may reveal what was committed so
#: long before it; smaller: a short delay already means `resync` for its readers.
UNFOLLOWED_JUDGEMENT_AGE_S_MAX: Final = 1.0

#: Seconds between two attempts to follow a table that policies read and that was busy. Each waits
#: for its writers for PUBLISH_LOCK_TIMEOUT_S and holds up new ones for as long.
DEPENDENCY_RETRY_S: Final = 10.0

#: Seconds after a definition has changed until what policies read is guessed anew: a migration
#: changes many.
DEPENDENCY_GUESS_WAIT_S: Final = 0.5

#: Different sets of tables read by judgements that are remembered as noted. Smaller: more
#: judgements look again at what they have read.
NOTED_READS_MAX: Final = 10_000

#: Row changes that may wait for one audience (role and claims) before it reads from the ring.
LANE_PENDING_CHANGES_MAX: Final = 5_000

#: Row changes judged in one transaction; a larger one of the application is judged in pieces. Each
#: statement of JUDGEMENT_BATCH_ROWS_MAX rows has JUDGEMENT_TIMEOUT_S. Larger: a large transaction
#: under a slow policy holds a judging connection for longer; smaller: more round trips.
LANE_ITEM_CHANGES_MAX: Final = 1_000

#: Bytes of row changes that may wait for one audience before it reads from the ring.
LANE_PENDING_BYTES_MAX: Final = 8 * 1024 * 1024

#: Seconds for which a trial of some tables' policies for a role, once it has passed, counts for who
#: joins next. Larger: who joins just after a policy was broken is not refused, but sees no rows,
#: like those who had joined before; smaller: many joins at once take longer.
TRIAL_AGE_S_MAX: Final = 2.0

#: Seconds between two looks at what decides rights while no judgement looks. Larger: what is made
#: and dropped again within it may stay unnoticed, and without event triggers the first change after
#: changed rights more often becomes `resync`; smaller: more queries on an idle database.
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

#: Terms in one filter; every one costs a comparison per change. Real filters have a few.
FILTER_TERMS_MAX: Final = 100

#: Characters of a `like`, `ilike`, `match` or `imatch` pattern; the longer a regular expression,
#: the longer PostgreSQL may search for a match (S18).
FILTER_PATTERN_CHARACTERS_MAX: Final = 2_000

#: Names in one `select` list: PostgreSQL's own bound of columns in a table.
SELECT_COLUMNS_MAX: Final = 1_600

#: Characters of a client's own parameters that an error text repeats.
ERROR_ECHO_CHARACTERS_MAX: Final = 1_000

#: `postgres_changes` entries in one join.
BINDINGS_PER_CHANNEL_MAX: Final = 1_000
#: Bytes of JSON that the entries of one join may have, those included that are only echoed. 1,000
#: entries of 260 bytes; larger: what clients invent takes some ten times as much while it waits.
BINDINGS_BYTES_PER_CHANNEL_MAX: Final = 256 * 1024

#: Changes held between a subscription's position and its start, which follow one another within a
#: tick. What comes above it is read from the ring after the start.
HELD_CHANGES_MAX: Final = 1_000

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
#: Bytes that may wait for all connections of the process together; beyond them the slowest are
#: closed, at the next look after them (S34). A thousand stalled readers at the high mark.
OUTBOUND_BYTES_TOTAL_MAX: Final = 1024 * 1024 * 1024
#: Seconds in which a client takes nothing of what waits for it, be it one byte, before its
#: connection is closed (3008).
WRITE_DEADLINE_S: Final = 10.0

#: Seconds for the HTTP upgrade, and for the first message after it, of any kind (S29).
HANDSHAKE_DEADLINE_S: Final = 10.0
JOIN_DEADLINE_S: Final = 10.0
#: Seconds of silence after which a socket is closed, as in Supabase Realtime.
SOCKET_SILENCE_S: Final = 60.0

#: Per socket: channels, joins per second (and burst), and pushes per second (and burst):
#: `broadcast`, `presence` and unknown events, all channels together. Too many joins end the socket,
#: too many pushes the channel that sent the last one.
CHANNELS_PER_SOCKET_MAX: Final = 100
JOINS_PER_SECOND_MAX: Final = 100
MESSAGES_PER_SECOND_MAX: Final = 100

#: `access_token` messages of one socket per second in the long run, before it is closed. Each may
#: cost a verification and a new subscription. At once there may be as many as messages of any kind:
#: clients send one for each channel, and supabase-js asks for a token after every join.
TOKENS_PER_SECOND_MAX: Final = 100

#: Open WebSockets of one server process.
CONNECTIONS_MAX: Final = 20_000

#: Connections that wait to be accepted; the system has a bound of its own (`somaxconn`, 4,096). The
#: rest is dropped without a word, and its client tries again after seconds. Smaller: so it is with
#: some of those who all come back at once.
ACCEPT_BACKLOG_MAX: Final = 16_384

#: Open files that sockets leave alone: connections to PostgreSQL (six to judge, four of the owner,
#: the reader), requests over HTTP, spilled transactions, logs. Fewer, and a flood of sockets keeps
#: the server from its database.
OPEN_FILES_RESERVED: Final = 128

#: Characters of a topic and of a ref.
TOPIC_CHARACTERS_MAX: Final = 255
REF_CHARACTERS_MAX: Final = 64

#: Keys of all objects in one client's message; more cost time to hash and no client needs them.
JSON_KEYS_MAX: Final = 10_000
#: Pieces that one fragmented WebSocket message may arrive in; more is an attempt to cost us time.
MESSAGE_FRAGMENTS_MAX: Final = 1_024
#: Bytes of the HTTP request line and headers together. A token of 8 KB fits twice (query, cookie).
HANDSHAKE_BYTES_MAX: Final = 16 * 1024
#: Fields in the query of a handshake. Clients send a handful; more only cost time to take apart.
QUERY_FIELDS_MAX: Final = 64
#: First size of a socket's read buffer; it doubles when needed. 16 KB tripled the idle memory.
READ_BUFFER_BYTES_INIT: Final = 2 * 1024
#: Messages of any kind per second and socket (and burst) before the socket is closed. Ten times
#: what pushes are allowed: 100 channels that rejoin and refresh their tokens at once stay below.
MESSAGES_ANY_PER_SECOND_MAX: Final = 1_000
#: Seconds a socket may live without any channel, as in Supabase Realtime.
NO_CHANNEL_S: Final = 600.0
#: Seconds for making one change subscription; clients give up on a join after 10.
SUBSCRIBE_DEADLINE_S: Final = 8.0
#: Seconds between two attempts of a channel to subscribe while the database does not answer.
SUBSCRIBE_RETRY_S: Final = 5.0
#: Texts of a subscription that wait until its join is answered.
SYSTEM_MESSAGES_WAITING_MAX: Final = 16
#: Seconds a drain may take to hand everybody's last frames over before sockets are cut.
DRAIN_DEADLINE_S: Final = 5.0
#: Seconds to wait for the peer's answer to a close frame before the socket is cut.
CLOSE_DEADLINE_S: Final = 2.0

# --- Tokens --------------------------------------------------------------------------------

#: Bytes of one token. PostgreSQL settings and headers stay small; JWTs of real issuers are < 4 KB.
TOKEN_BYTES_MAX: Final = 8 * 1024
#: Seconds that an issuer's clock may be ahead of ours when `nbf` is checked. `exp` has no leeway: a
#: token is refused from that second on, and a channel is cut then.
TOKEN_LEEWAY_S: Final = 5.0
#: Seconds between two checks of a channel's token, as in Supabase Realtime.
TOKEN_CHECK_INTERVAL_S: Final = 300.0

#: Keys in one JWKS. Issuers publish two or three; more would make every refused token slower.
JWKS_KEYS_MAX: Final = 100
#: Bits of an RSA key that may verify tokens. 1024 can be factored by who has the money.
RSA_KEY_BITS_MIN: Final = 2048
#: Bytes of a secret that signs tokens, as RFC 7518 §3.2 demands for HS256.
JWT_SECRET_BYTES_MIN: Final = 32
#: Bytes of a JWKS that is fetched, and seconds for fetching it.
JWKS_BYTES_MAX: Final = 256 * 1024
JWKS_TIMEOUT_S: Final = 5.0
#: Seconds after which a fetched JWKS is fetched again: issuers cache theirs for as long. Larger: a
#: key that was withdrawn is believed for longer.
JWKS_AGE_S_MAX: Final = 600.0
#: Seconds between two fetches, whatever asks for them. Smaller: tokens with invented key ids make
#: us hammer the issuer; larger: a new key works later.
JWKS_REFETCH_INTERVAL_S: Final = 10.0

# --- PostgreSQL itself ---------------------------------------------------------------------

#: Oldest PostgreSQL major version served. 15 brought column lists and row filters of publications
#: and `security_invoker` views; 14 has neither.
POSTGRES_MAJOR_MIN: Final = 15

#: Seconds in which an embedded PostgreSQL must be ready. Crash recovery of a large WAL counts in;
#: smaller: a slow disk fails the start; larger: a broken start is reported late.
POSTGRES_START_TIMEOUT_S: Final = 60.0

#: Seconds for the fast shutdown of an embedded PostgreSQL before it is told to stop at once
#: (no data is lost by that: the next start recovers from WAL).
POSTGRES_STOP_TIMEOUT_S: Final = 20.0

#: Seconds after the death of a PostgreSQL main process in which its children must be gone before a
#: new one may start. Idle ones notice at once (measured).
POSTGRES_ORPHANS_TIMEOUT_S: Final = 10.0

#: Seconds after which children that have not noticed are told to quit: one that computes looks at
#: nothing else. Larger: a start after `kill -9` takes longer than the 6 s promised.
POSTGRES_ORPHANS_PATIENCE_S: Final = 1.0

#: Restarts of an embedded PostgreSQL that ended by itself, within the window in seconds, before
#: Heliograph gives up. More: a broken disk or cluster is hammered without anybody being told.
POSTGRES_RESTARTS_MAX: Final = 5
POSTGRES_RESTARTS_WINDOW_S: Final = 60.0

#: Bytes of the embedded PostgreSQL's log at which a start puts it aside; one old log is kept.
POSTGRES_LOG_BYTES_MAX: Final = 10 * 1024 * 1024

# --- SQL sessions of commands and of the demo ----------------------------------------------

#: Seconds to connect, as libpq counts them (whole seconds, at least 2).
SQL_CONNECT_TIMEOUT_S: Final = 10.0

#: Seconds one statement may run before PostgreSQL cancels it. The demo's longest (its tables and
#: its content in one go) takes a few tenths of a second; a busy disk may make it ten times that.
SQL_STATEMENT_TIMEOUT_S: Final = 30.0

#: Seconds beyond SQL_STATEMENT_TIMEOUT_S that we wait for the answer before we believe that the
#: server is gone. Smaller: a cancelled statement looks like a lost connection.
SQL_ANSWER_MARGIN_S: Final = 5.0

# --- Shop simulator of the demo ------------------------------------------------------------

#: Seconds between two business actions: drawn evenly between the two. Smaller: nobody can follow
#: it on a screen; larger: a visitor thinks that nothing happens.
SIMULATOR_PAUSE_S_MIN: Final = 1.0
SIMULATOR_PAUSE_S_MAX: Final = 3.0

#: First and last wait after the database was gone, in seconds. The wait doubles.
SIMULATOR_RETRY_WAIT_FIRST_S: Final = 0.5
SIMULATOR_RETRY_WAIT_LAST_S: Final = 10.0

#: Open orders of one branch above which no new one is taken until some are delivered.
SIMULATOR_OPEN_ORDERS_MAX: Final = 25

#: Finished orders of one branch that are kept; older ones are deleted one by one. Larger: a demo
#: left running for days grows; smaller: the tables look empty.
SIMULATOR_FINISHED_ORDERS_MAX: Final = 100

# --- Migrations, publications and the judging login ----------------------------------------

#: Seconds that a migration waits for one lock. Larger: others queue behind our waiting lock for
#: as long; smaller: a busy database is never migrated.
MIGRATION_LOCK_TIMEOUT_S: Final = 10.0

#: Seconds one migration statement may run. They only touch catalogs: milliseconds each.
MIGRATION_STATEMENT_TIMEOUT_S: Final = 60.0

#: Seconds for one whole migration, or one attempt to publish a table, before the connection counts
#: as dead. Must exceed the two bounds above.
MIGRATION_TIMEOUT_S: Final = 120.0

#: Attempts at one migration when another database of the same cluster alters the same roles.
MIGRATION_ATTEMPTS_MAX: Final = 5

#: Seconds that `publish` waits for open writers of a table. New writers queue behind the waiting
#: lock for as long, so the application stands still meanwhile: short, and more attempts instead.
PUBLISH_LOCK_TIMEOUT_S: Final = 2.0

#: Attempts of `publish`, and the wait after the first one in seconds (then twice, three times …,
#: each spread by half). Ten attempts take about half a minute of waiting and 20 s of asking.
PUBLISH_ATTEMPTS_MAX: Final = 10
PUBLISH_RETRY_WAIT_S: Final = 0.5

#: Connections that the judging login may hold: JUDGEMENT_CONNECTIONS_MAX for each of several server
#: processes, and the old ones while they are replaced.
JUDGE_LOGIN_CONNECTIONS_MAX: Final = 40

#: Connections of the owner's login: catalog, positions, following. Larger: each costs PostgreSQL
#: about 10 MB; smaller: many joins at once wait for each other.
ADMIN_CONNECTIONS_MAX: Final = 4

#: Seconds that one statement on the catalog may take, and to wait for a free connection. Larger: a
#: database that hangs is noticed later; smaller: one that is busy fails joins.
ADMIN_STATEMENT_TIMEOUT_S: Final = 15.0

#: Seconds for all that is done with one such connection, the wait for it included. Must exceed the
#: bound above.
ADMIN_CONNECTION_TIMEOUT_S: Final = 30.0

#: Seconds that such a statement waits for one lock. Larger: others queue behind it for as long.
ADMIN_LOCK_TIMEOUT_S: Final = 5.0

#: Seconds for opening one database connection; whole seconds, as libpq takes them.
POSTGRES_CONNECT_TIMEOUT_S: Final = 10

#: Seconds for which a pool repeats a refused connection by itself. Larger: after a long outage the
#: repetitions are as far apart, and whoever needs a connection waits for the next one.
POOL_RECONNECT_S: Final = 3.0

#: Seconds for checking an external database before it is used: a handful of short statements.
POSTGRES_CHECK_TIMEOUT_S: Final = 30.0

#: Seconds between two looks at a database that is served, and for the answer to one. `/ready` tells
#: what the last look found, so it is wrong for at most their sum. Shorter: statements for nothing;
#: longer: a balancer goes on sending clients to a server that can not serve them.
DATABASE_LOOK_INTERVAL_S: Final = 2.0
DATABASE_LOOK_TIMEOUT_S: Final = 2.0

#: Looks kept to tell how many seconds the reader is behind: an hour of them. More would only tell
#: apart lags that are a disaster either way.
DATABASE_LOOKS_KEPT_MAX: Final = 1_800

# --- heliograph tail -----------------------------------------------------------------------

#: Seconds between two heartbeats, as in the official clients; the server closes after 60 s of
#: silence. The answer must arrive before the next one is due.
TAIL_HEARTBEAT_INTERVAL_S: Final = 25.0

#: Seconds for opening the WebSocket, for the answer to the join, and for sending one frame.
TAIL_ANSWER_TIMEOUT_S: Final = 10.0

#: First and last wait before connecting again, in seconds. The wait doubles.
TAIL_RECONNECT_WAIT_FIRST_S: Final = 0.5
TAIL_RECONNECT_WAIT_LAST_S: Final = 10.0

#: Bytes of one message from the server: CHANGE_DATA_BYTES_MAX for the row, again for its old
#: version, and room for servers that are more generous.
TAIL_MESSAGE_BYTES_MAX: Final = 16 * 1024 * 1024

#: Seconds that a token minted for `--as` is good for. It is renewed at half of it; a shorter one
#: is worth less to whoever steals it.
TAIL_TOKEN_LIFETIME_S: Final = 600.0

#: Characters of one value in a line; longer ones end with an ellipsis. `--json` shows all of it.
TAIL_VALUE_CHARACTERS_MAX: Final = 60

# --- Positions of subscribers -----------------------------------------------------------------

#: Seconds without a position after which an idle channel that asked for positions is told one. Well
#: below RING_AGE_S_MAX, so that a client that was idle can always go on.
POSITION_IDLE_S: Final = 5.0

#: Seconds between two looks for channels that are owed a position and had nothing to send since.
POSITION_CHECK_INTERVAL_S: Final = 0.2

#: Changes delivered without a position, above which one is told inside a transaction. A client
#: holds back what it was not told a position for, so this bounds its memory.
POSITION_INSIDE_CHANGES: Final = 1_000

#: Seconds between two times that a channel with positions is told that rights changed without a row
#: of its own, or the same reason for changes that were skipped. Whoever is told loads its rows
#: again: where policies read a busy table, as often as this.
RIGHTS_TOLD_INTERVAL_S: Final = 1.0

#: Seconds between two looks whether transactions have ended that had written to a table before it
#: was published. Clients with positions wait for that; each look is two short queries.
LATE_WRITERS_CHECK_INTERVAL_S: Final = 0.1

#: Ids of transactions in one line of the log.
LOGGED_XIDS_MAX: Final = 20

#: Seconds that a subscription which resumes waits for the stream to come as far as its client was.
#: More than replay takes after a restart (SLOT_TRAIL_TRANSACTIONS_MAX).
RESUME_WAIT_S: Final = 20.0

#: Seconds for which the rows of a transaction too large for memory are kept on disk although nobody
#: reads them, for clients that were cut off within it; as many as OVERSIZE_KEPT_MAX.
OVERSIZE_UNREAD_S: Final = 60.0

# --- heliograph doctor ---------------------------------------------------------------------

#: Seconds for one request to a running server. Larger: a server that hangs holds the report up;
#: smaller: one on a busy machine counts as silent.
DOCTOR_HTTP_TIMEOUT_S: Final = 3.0

#: Bytes of one answer of whatever listens at the address. Our metrics have some 30 KB.
DOCTOR_ANSWER_BYTES_MAX: Final = 1024 * 1024

#: Seconds that two clocks may differ before it is worth a warning; beyond TOKEN_LEEWAY_S it is a
#: failure, because fresh tokens are refused then. A Date header tells whole seconds.
DOCTOR_CLOCK_SKEW_S_MAX: Final = 2.0

#: Bytes of WAL that a slot may hold before it is worth a warning. Larger: a small disk is full
#: before anybody is told; smaller: a busy hour of an ordinary shop is called a fault.
DOCTOR_SLOT_BYTES_MAX: Final = 1024 * 1024 * 1024

#: Rows of each table that its policies are tried on, and the bytes of one of them (larger ones are
#: left out). More rows find rarer faults and load the database for longer.
DOCTOR_SAMPLE_ROWS_MAX: Final = 100
DOCTOR_SAMPLE_ROW_BYTES_MAX: Final = 64 * 1024

#: Tables whose policies are tried, in the order of their names; the report says how many were not.
DOCTOR_TABLES_MAX: Final = 200

#: Seconds for judging one such sample above which policies are called slow: 2.5 ms a row, eighty
#: times what a policy on the row's own columns takes (0.03 ms).
DOCTOR_POLICY_S_MAX: Final = 0.25

#: Channels of one socket, on average, above which a client probably forgets to leave its channels.
#: Real pages have a handful.
DOCTOR_CHANNELS_PER_SOCKET_MAX: Final = 20

#: Sockets below which it is not worth a warning that most have no channel: people just connecting.
DOCTOR_IDLE_SOCKETS_MIN: Final = 20

#: Seconds before its end in which a key is worth a warning: a month to hand out another.
DOCTOR_KEY_LIFETIME_S_MIN: Final = 2_592_000.0

#: Characters of a token that are read from standard input: more than the largest percent-encoded
#: one, which is three times TOKEN_BYTES_MAX.
DOCTOR_TOKEN_CHARACTERS_MAX: Final = 64 * 1024
