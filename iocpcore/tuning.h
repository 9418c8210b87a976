/* The numbers of every layer: sizes, times and bounds. Only this file knows that there is a simulated build.
 *
 * That build (tests/simulation) makes many of them small, so that events that are rare on a real system are common: a
 * round is over after a few messages, a slab is full after a few sessions.
 * Times are in nanoseconds and sizes in bytes, unless a comment says otherwise.
 */
#ifndef IOCPCORE_TUNING_H
#define IOCPCORE_TUNING_H

#include <stdint.h>

#ifdef IOCPCORE_SIMULATED
#define TUNED(product, simulated) (simulated)
#else
#define TUNED(product, simulated) (product)
#endif
#define TUNED_MILLISECONDS(count) (UINT64_C(1000000) * (count))
#define TUNED_SECONDS(count) (UINT64_C(1000000000) * (count))

/* ---- the calls on Linux ---- */

#define SOCKET_SLAB_BYTES TUNED(16384, 512) /* of a slab of socket states: allocated and given back as one */

/* ---- the loop ---- */

#define BATCH 128   /* packets of one dequeue, at most */
#define FAILURES_MOST 100 /* failed dequeues in a row after which the port is broken for good */

/* Fairness: see "Turns" in docs/design.md. Contention: small messages arrive beside large ones. */
#define TURN 32          /* steps of a session's turn */
#define CONTENDED_TURN 8 /* ... under contention */
#define SHORT_TURN 3     /* ... once the round has spent its budget of bytes */
#define STEP (RECEIVE_SIZE / 2)                      /* each STEP bytes that a step moves count as one more step */
#define ROUND (TUNED(64, 2) * RECEIVE_SIZE)          /* the budget: bytes received and sent between two dequeues */
#define CONTENDED_ROUND (TUNED(4 * RECEIVE_SIZE, ROUND / 4)) /* ... under contention */
#define CONTENDED_TIME TUNED_MILLISECONDS(10)        /* of contention, after a small message beside a large one */
#define LARGE_TIME TUNED_MILLISECONDS(1)             /* "beside": at most so long after a receive of several buffers */
#define LITTLE (RECEIVE_SIZE / 4)                    /* a receive up to this size is a small message */

#define GIL_TIME UINT64_C(20000) /* a worker that took longer to attach has waited for the GIL */
#define MUCH (4 * RECEIVE_SIZE)  /* received in a batch: callbacks then run before the rest of the batch is handled */

#define LEAST_TIMERS TUNED(256, 4) /* entries that a heap of timers has room for, at least */
#define SPARE_TIME TUNED_MILLISECONDS(1) /* a spared session is checked again then; usually its packet comes sooner */

/* Above any of these three the worker is behind, and the log says so. A worker takes 100,000 messages in about a tenth
 * of a second, and 64 MiB is what the default send_limit lets one session queue. The age shows a callback that blocks
 * even if few small messages wait. */
#define BACKLOG_ITEMS TUNED(100000, 3)
#define BACKLOG_BYTES TUNED(SEND_LIMIT_DEFAULT, 4096)
#define BACKLOG_TIME TUNED_SECONDS(5) /* of the oldest message */

#define WARN_PERIOD TUNED(TUNED_SECONDS(60), TUNED_MILLISECONDS(1)) /* between two warnings of the same trouble */

/* ---- memory ---- */

#define RECEIVE_SIZE TUNED(16384u, 1024u) /* of a pooled receive buffer */
#define COPY_SIZE 960    /* room of a copy for sending, at least: later small sends are appended to it */
#define SLAB_BUFFERS 64  /* buffers of a slab: allocated and given back as one */
#define SLAB_SESSIONS TUNED(128, 4) /* sessions of a slab, likewise */
#define TRIM_TIME TUNED_SECONDS(1)  /* an unused slab goes back to the system by then */
#define RELEASED_SPOILT TUNED(0, 1) /* 1: overwrite released memory, so that a use after release shows */

/* ---- the steps ---- */

#define ACCEPTS 16            /* AcceptEx that each listener keeps posted */
#define BACKLOG_MOST 65535    /* connections that a closing listener takes from the backlog: none is longer */
#define ACCEPT_PATIENCE 256   /* failures in a row that may each be the fault of one connection */
#define ACCEPT_RETRY_TIME TUNED_MILLISECONDS(50) /* between attempts while accepting keeps failing */

#define RECEIVE_GATHER 16     /* pooled buffers of one WSARecv, at most */
#define CONTENDED_MORE 3      /* buffers beside the first under contention: with fewer the worker catches up later */
#define IDLE_TIME TUNED_SECONDS(5) /* without data, after which a session should hold no receive buffer */
/* Messages that a session waits for without a buffer after an idle time; on Windows also at its beginning. */
#define SELDOM 2

#define SEND_GATHER 16        /* WSABUFs of one WSASend, at most */
#define SEND_LIMIT 262144     /* of one WSASend, at most: a larger one would show no progress for too long */

#define STALL_TIME TUNED_SECONDS(30) /* send_timeout of a finishing session that has none */
#define DRAIN_TIME TUNED_SECONDS(1)  /* for cancelled operations to end; then their socket is closed */
#define LEAVE_TIME (2 * DRAIN_TIME)  /* without progress after the drain, until a worker leaves and leaks the rest */

/* ---- the options of a session: what it has if nothing else is wanted, and the most that may be wanted ---- */

#define LINGER_DEFAULT TUNED_SECONDS(5) /* for the peer to end after us */
#define RECEIVE_DEFAULT (8 * RECEIVE_SIZE) /* of one receive, at most */
#define RECEIVE_MOST (RECEIVE_GATHER * RECEIVE_SIZE)
#define HIGH_WATER_DEFAULT 65536
#define LOW_WATER_DEFAULT (HIGH_WATER_DEFAULT / 4)
#define SEND_LIMIT_DEFAULT (64 << 20)
#define QUEUE_MOST (UINT64_C(1) << 40) /* of the three that count queued bytes */

#endif
