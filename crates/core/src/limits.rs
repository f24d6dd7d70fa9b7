//! Every bound of the proxy, with its reason and its outcome. Bounds that an operator may set are
//! directives; their defaults stand here too.
//!
//! The compiler flag `--cfg small_limits` makes those small that a request or a client meets only at
//! great size, so that every simulated world meets them all the time. Never for use.

use crate::time::Span;

/// A bound, and what it is under `--cfg small_limits`.
const fn bound(usual: usize, small: usize) -> usize {
    if cfg!(small_limits) { small } else { usual }
}

/// Bytes of one read at most, into the worker's scratch buffer. Large enough that a deep pipeline, or a
/// value of 64 KB with its command, is one read; small enough to stay in the second-level cache.
pub const SCRATCH_LEN: usize = SEND_LARGE_CHUNK_LEN - SCRATCH_TAIL_MAX;

/// A saved tail up to this length is copied in front of the next read of the scratch buffer; a
/// longer one grows in place, so that each byte of a large request is copied a bounded number of
/// times.
pub const SCRATCH_TAIL_MAX: usize = bound(8 * 1024, 2_100);

/// Room that a read is lent at least when it is not known where a frame ends; with more of the frame, as much as
/// there is of it. A frame that comes in many pieces then takes one read per piece.
pub const RECV_ROOM_MIN: usize = bound(8 * 1024, 500);

/// Bytes of the chunk that a send queue begins with: small messages are copied together into chunks,
/// and many clients that are owed a little must not hold much.
pub const SEND_SMALL_CHUNK_LEN: usize = bound(4 * 1024, 64);

/// Bytes of the chunks that a longer send queue goes on with.
pub const SEND_CHUNK_LEN: usize = bound(16 * 1024, 256);

/// Messages that lie side by side are copied at once up to this length: a longer copy would begin a
/// larger chunk than each of them alone.
pub const RUN_COPY_LEN_MAX: usize = SEND_CHUNK_LEN;

/// Requests of one client that are planned together, before any of them is queued: enough that what
/// is done once for all of them does not show, few enough that the plan stays in the first-level cache.
pub const RUN_LEN_MAX: usize = bound(64, 3);

/// A message at least this long becomes a segment of its own instead of being copied, when its
/// buffer can be moved.
pub const SEND_MOVE_MIN: usize = bound(8 * 1024, 128);

/// A read that is one whole request of at least this length is passed on in the buffer it was read
/// into, and the next read gets another one: below, a copy costs less than a buffer that is not in
/// the cache.
pub const BLOCK_MOVE_MIN: usize = bound(16 * 1024, 1_000);

/// Free small chunks one engine keeps for reuse; more are given back to the allocator at once. In every
/// tick each busy client takes one or two and gives them back: with fewer than that the allocator would
/// be called for the rest. What is not needed any more goes back within [`TIDY_PERIOD`]s.
pub const FREE_SMALL_CHUNKS_MAX: usize = 512;

/// Free chunks one engine keeps for reuse; more are given back to the allocator at once. As above, for
/// server connections, each of which keeps up to [`KEPT_CHUNKS_MAX`] while requests are outstanding.
pub const FREE_CHUNKS_MAX: usize = 64;

/// Bytes of one large chunk: holds a value of 64 KB with its command, the commonest size of a large
/// one, and is what longer messages are cut into.
pub const SEND_LARGE_CHUNK_LEN: usize = bound(128 * 1024, 8_000);

/// Free large chunks one engine keeps for reuse; more are given back to the allocator at once.
pub const FREE_LARGE_CHUNKS_MAX: usize = 12;

/// Bytes waiting for one client that are sent before the end of the tick: the first of a large
/// tick need not wait for the last, and what was just read is still in the cache.
pub const EARLY_FLUSH_LEN: u64 = if cfg!(small_limits) { 500 } else { 32 * 1024 };

/// The same for a server connection, on which many clients' requests come together: a few large
/// writes cost less than many, and the half of the cache is enough for what waits.
pub const SERVER_EARLY_FLUSH_LEN: u64 = if cfg!(small_limits) {
    1_500
} else {
    256 * 1024
};

/// Bytes of early responses that have left which a client may keep beside those that wait; with more,
/// and more than half, they are forgotten.
pub const PARKED_DEAD_MAX: usize = bound(16 * 1024, 256);

/// Free records of split requests one engine keeps for reuse, with at most [`FREE_FRAGMENTS_MAX`]
/// response buffers of at most [`FREE_FRAGMENT_LEN_MAX`] bytes each; the rest goes to the allocator.
pub const FREE_SPLITS_MAX: usize = 64;
/// See [`FREE_SPLITS_MAX`].
pub const FREE_FRAGMENTS_MAX: usize = 16;
/// See [`FREE_SPLITS_MAX`].
pub const FREE_FRAGMENT_LEN_MAX: usize = 4 * 1024;

/// Elements of one fragment's response whose places are remembered from when it is measured until it is
/// merged; the elements of one that has more are found a second time.
pub const RESPONSE_MARKS_MAX: usize = bound(4096, 5);

/// Keys of one request for whose places memory is kept; more give it back to the allocator at once.
pub const FREE_PARTS_MAX: usize = 16 * 1024;

/// Free records one engine keeps for clients that wake, each with room for at most
/// [`FREE_ORDER_LEN_MAX`] requests and [`FREE_SEGMENTS_MAX`] segments of responses; the rest goes to the
/// allocator. As many clients as have a request in flight at the same time wake without allocating.
pub const FREE_CLIENTS_MAX: usize = 1024;
/// How many of them stay when they are not needed.
pub const FREE_CLIENTS_MIN: usize = 16;
/// See [`FREE_CLIENTS_MAX`].
pub const FREE_ORDER_LEN_MAX: usize = 256;
/// See [`FREE_CLIENTS_MAX`].
pub const FREE_SEGMENTS_MAX: usize = 16;

/// How often memory that is kept for reuse is looked through; what was not needed in between is given
/// back.
pub const TIDY_PERIOD: Span = Span::from_millis(1000);

/// Slots of a server connection's pipeline for which there stays room when it is not needed, or up to
/// twice as many.
pub const PIPELINE_LEN_MIN: usize = 256;

/// Actions of one kind for which there stays room when it is not needed, or for up to twice as many.
pub const OUTBOX_LEN_MIN: usize = 512;

/// Bytes that count as held for each request in flight, beside its own: its entry in its client's order queue.
pub const REQUEST_HELD_LEN: usize = 32;

/// Bytes that count as held for each response that a server connection owes: the slot, and when it was written.
pub const SLOT_HELD_LEN: usize = 64;

/// Bytes by which the buffer of an unfinished request or response grows at once, at most: near `memory_limit`
/// a large one must not claim twice what it needs.
pub const RECV_GROWTH_MAX: usize = 4 * 1024 * 1024;

/// Requests of one client in flight; at the limit the client is not read until replies have left.
pub const CLIENT_IN_FLIGHT_MAX: u32 = if cfg!(small_limits) { 8 } else { 4096 };

/// Requests of a new client in flight, and of one whose responses were large. Each time so many are in flight and
/// half of them have brought small responses, twice as many are allowed, up to [`CLIENT_IN_FLIGHT_MAX`]: a few KB
/// of requests can ask for hundreds of MB, and that they do is known only when responses come.
pub const CLIENT_IN_FLIGHT_FIRST: u32 = if cfg!(small_limits) { 2 } else { 32 };

/// Bytes of replies waiting for one client that are not yet many: a client with more begins no request while more
/// than half of `memory_limit` is held.
pub const CLIENT_OUTPUT_SOFT: u64 = if cfg!(small_limits) {
    2_000
} else {
    256 * 1024
};

/// A response at least this long is a large one.
pub const LARGE_RESPONSE_LEN: u64 = if cfg!(small_limits) { 250 } else { 16 * 1024 };

/// Bytes of large responses, by the size of the last, that are in flight for one client: its next requests wait,
/// but one always goes. The responses of others wait in line behind them on the same server connection.
pub const LARGE_IN_FLIGHT_LEN: u64 = if cfg!(small_limits) {
    1_000
} else {
    128 * 1024
};

/// Default of `client_output_limit` (hard limit): the client is closed, the rest of its replies
/// discarded and counted. Above redis' largest value, so that every single reply can pass.
pub const CLIENT_OUTPUT_LIMIT_DEFAULT: u64 = 1024 * 1024 * 1024;

/// Default of `request_size_limit`: redis' own bound for one value (512 MB) and room for the rest of
/// the command. A longer request is refused and its bytes swallowed.
pub const REQUEST_SIZE_LIMIT_DEFAULT: u32 = 513 * 1024 * 1024;

/// Bytes waiting for one server connection above which no further client request is taken for it;
/// the clients concerned are not read until half of it has left.
pub const SERVER_OUTPUT_SOFT: u64 = if cfg!(small_limits) {
    4_000
} else {
    4 * 1024 * 1024
};

/// Share of `memory_limit` above which no client begins a request; at the limit itself the client that has moved
/// least and holds most is closed.
pub const MEMORY_LIMIT_SOFT_PERCENT: u64 = 80;

/// Longest that a client waits for memory, or half of its pool's `timeout` if that is shorter: then those who hold
/// it are closed until enough is free, and again after each further such time. Unfinished requests and unread
/// replies can be held for ever; those who wait for them have time-outs of seconds.
pub const MEMORY_WAIT_MAX: Span = Span::from_millis(5_000);

/// A client that could move, and has not for so long, is closed before others that hold memory.
pub const MEMORY_SILENCE: Span = Span::from_millis(1_000);

/// How often an engine that holds much looks whether clients of other engines wait for it.
pub const MEMORY_LOOK_PERIOD: Span = Span::from_millis(250);

/// Arguments of one redis request, as in redis before 7; more is a protocol error.
pub const REDIS_ARGS_MAX: u32 = 1024 * 1024;

/// Bytes of one redis bulk string, redis' `proto-max-bulk-len`; more is a protocol error.
pub const REDIS_BULK_LEN_MAX: u32 = 512 * 1024 * 1024;

/// Bytes of one inline command or header line, redis' `PROTO_INLINE_MAX_SIZE`; more is a protocol
/// error.
pub const REDIS_INLINE_LEN_MAX: usize = 64 * 1024;

/// Words and bytes per word an unauthenticated redis client may send, as in redis 7.
pub const REDIS_UNAUTHENTICATED_ARGS_MAX: u32 = 10;
/// See [`REDIS_UNAUTHENTICATED_ARGS_MAX`].
pub const REDIS_UNAUTHENTICATED_BULK_LEN_MAX: u32 = 16 * 1024;

/// Bytes of a client's name (`CLIENT SETNAME`); a longer one is refused. Redis has no such limit.
pub const CLIENT_NAME_LEN_MAX: usize = 1024;

/// Keys of one memcached `get`, as redis' arguments; more is `CLIENT_ERROR line too long`.
pub const MEMCACHE_KEYS_MAX: usize = bound(1024 * 1024, 4_096);

/// Bytes of a memcached key.
pub const MEMCACHE_KEY_LEN_MAX: usize = 250;

/// Bytes of a memcached command line of a client other than `get`, `gets`, `gat` and `gats`, as memcached
/// 1.6; more is `CLIENT_ERROR line too long` and closes (memcached closes without a word).
pub const MEMCACHE_LINE_LEN_MAX: usize = 2048;

/// Bytes of a line that is sent to memcached, line end included, other than `get` and `gets` of several
/// keys. Memcached before 1.6.10 closes a connection on which a longer one comes in pieces. A longer line
/// of a client is composed anew, or refused if a data block follows.
pub const MEMCACHE_FORWARDED_LINE_LEN_MAX: usize = bound(1024, 300);

/// The same for `get` and `gets` of several keys: memcached looks at an unfinished line from its beginning
/// whenever more of it comes. A longer line becomes several fragments for the same server.
pub const MEMCACHE_FRAGMENT_LEN_MAX: usize = bound(2048, 300);

/// Fragments of one request, which are numbered with 16 bits; more is `CLIENT_ERROR line too long`.
pub const REQUEST_FRAGMENTS_MAX: usize = 65_535;

/// Servers of one pool, each of which may get a fragment of a request; more is an error in the
/// configuration.
pub const POOL_SERVERS_MAX: usize = REQUEST_FRAGMENTS_MAX;

/// Bytes of a request of the binary protocol that are waited for: its header, which the error frame
/// echoes.
pub const MEMCACHE_BINARY_HEADER_LEN: usize = 24;

/// Bytes of one line of a server's response (simple string, error, header); more is a protocol
/// error of the server.
pub const RESPONSE_LINE_LEN_MAX: usize = 64 * 1024;

/// Bytes of a response up to which it is held until it is whole, when it comes in pieces; a longer one is passed on
/// piece by piece. If the server's connection breaks within one that is held, its client gets an error for that
/// request; within a longer one, the client can only be closed.
pub const RESPONSE_HOLD_LEN_MAX: u64 = if cfg!(small_limits) { 300 } else { 64 * 1024 };

/// Chunks of sent bytes that one server connection keeps until its pipeline is empty: 64 KB at most. A
/// read-only request that is still there when the server closes the connection is sent once more;
/// an older one gets the error.
pub const KEPT_CHUNKS_MAX: usize = 4;

/// Requests that have expired and whose responses a server connection still owes; with more it is given up, as a
/// server that says just enough not to count as silent would otherwise pile them up.
pub const SLOTS_EXPIRED_MAX: usize = bound(64 * 1024, 64);

/// Attempts in a row to connect to a server that may fail before the next one has to wait, so that
/// a server that restarts is used at once.
pub const RECONNECT_FREE_MAX: u32 = 8;

/// Shortest wait before the next attempt; it doubles with each failure. Meanwhile requests get the
/// last failure's words at once.
pub const RECONNECT_WAIT_MIN: Span = Span::from_millis(10);

/// Longest wait before the next attempt, give or take a quarter: short, because nobody is told when
/// the server is back.
pub const RECONNECT_WAIT_MAX: Span = Span::from_millis(250);

/// Longest time between an error that is the first response on a server connection and the server's
/// close for both to be one refusal, in a pool without `timeout`.
pub const REFUSAL_WAIT: Span = Span::from_millis(1_000);

/// Least time between two probes of an ejected server, for a `server_retry_timeout` of nothing.
pub const PROBE_PERIOD_MIN: Span = Span::from_millis(10);

/// Slices that one call of `send_slices` fills at most: the kernel's `IOV_MAX` is 1024, and more
/// than this gains nothing.
pub const SEND_SLICES_MAX: usize = 16;

/// Ticks of a worker begin at least this share of a response time apart, one in so many, so that a response
/// takes at most half as long again: the share counts on the way there and on the way back.
pub const GATHER_SHARE: u64 = 4;

/// Longest time from the beginning of one tick to the next that events are left to gather: next to
/// nothing beside the way through a network.
pub const GATHER_MAX: Span = Span(50);

/// A shorter sleep costs more than it saves.
pub const GATHER_MIN: Span = Span(24);

/// Share of its time, in percent, up to which a worker that ticks lets events gather for the whole time.
pub const GATHER_BUSY_MIN: u64 = 55;

/// The same from which it lets none gather; in between proportionally less.
pub const GATHER_BUSY_MAX: u64 = 75;

/// Reads of one connection in one tick before others get their turn.
pub const READS_PER_TICK: usize = 2;

const _: () = assert!(SCRATCH_TAIL_MAX < SCRATCH_LEN / 2);
const _: () = assert!(RECV_ROOM_MIN < SCRATCH_LEN);
const _: () = assert!(CLIENT_IN_FLIGHT_FIRST < CLIENT_IN_FLIGHT_MAX);
const _: () = assert!(GATHER_BUSY_MIN < GATHER_BUSY_MAX);
const _: () = assert!(SEND_MOVE_MIN <= SEND_CHUNK_LEN);
const _: () = assert!(SEND_SMALL_CHUNK_LEN <= SEND_CHUNK_LEN);
const _: () = assert!(cfg!(small_limits) || SCRATCH_LEN >= 64 * 1024 + MEMCACHE_LINE_LEN_MAX);
const _: () = assert!(BLOCK_MOVE_MIN >= SEND_MOVE_MIN);
const _: () = assert!(MEMCACHE_LINE_LEN_MAX < SCRATCH_TAIL_MAX);
// A command, the longest key, an expiry time and the line end fit.
const _: () = assert!(MEMCACHE_FORWARDED_LINE_LEN_MAX > MEMCACHE_KEY_LEN_MAX + 40);
const _: () = assert!(CLIENT_OUTPUT_SOFT < CLIENT_OUTPUT_LIMIT_DEFAULT);
