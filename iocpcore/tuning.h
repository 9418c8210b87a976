/* The numbers of every layer: sizes, times and bounds. Only this file knows that there is a simulated build.
 *
 * That build (tests/simulation) makes many of them small, so that what is rare on a real system is common: a round is
 * over after a few messages, a slab is full after a few sessions.
 * Times are nanoseconds, sizes are bytes, where nothing else is said.
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

#define SOCKET_SLAB_BYTES TUNED(16384, 512) /* states of sockets that are made, and given back, together */

/* ---- the loop ---- */

#define BATCH 128   /* packets that one dequeue may return */
#define FAILURES_MOST 100 /* dequeues that fail in a row: then the port is broken for ever */

#define TURN 32          /* steps of one session before the others have their turn; one that moves much counts as several */
#define CONTENDED_TURN 8 /* ... while others wait that say little */
#define SHORT_TURN 3     /* ... once the round has moved what it may */
#define STEP (RECEIVE_SIZE / 2)                      /* bytes that count as one step more */
#define ROUND (TUNED(64, 2) * RECEIVE_SIZE)          /* bytes that a round moves before the worker looks for packets */
#define CONTENDED_ROUND (TUNED(4 * RECEIVE_SIZE, ROUND / 4)) /* ... while others wait that say little */
#define CONTENDED_TIME TUNED_MILLISECONDS(10)        /* for which they are believed to wait after one was served */
#define LARGE_TIME TUNED_MILLISECONDS(1)             /* after a receive of more than a buffer: small ones are beside it */
#define LITTLE (RECEIVE_SIZE / 4)                    /* a receive of at most so much says little */

#define GIL_TIME UINT64_C(20000) /* that it takes to attach, at most, when no other thread has the GIL */
#define MUCH (4 * RECEIVE_SIZE)  /* that a batch may have received before its callbacks run */

#define LEAST_TIMERS TUNED(256, 4) /* that a heap has room for */
#define SPARE_TIME TUNED_MILLISECONDS(1) /* until a spared session is asked again; its packet comes sooner as a rule */

/* Above one of them the worker is behind: it takes a hundred thousand items in a tenth of a second, and by default one
 * session alone may queue so many bytes. Few small items show a callback that blocks by their age. */
#define BACKLOG_ITEMS TUNED(100000, 3)
#define BACKLOG_BYTES TUNED(SEND_LIMIT_DEFAULT, 4096)
#define BACKLOG_TIME TUNED_SECONDS(5) /* that the oldest has waited */

#define WARN_PERIOD TUNED(TUNED_SECONDS(60), TUNED_MILLISECONDS(1)) /* between two warnings of the same trouble */

/* ---- memory ---- */

#define RECEIVE_SIZE TUNED(16384u, 1024u) /* of a pooled buffer */
#define COPY_SIZE 960    /* that a copy for sending has room for, at least: later small ones join it */
#define SLAB_BUFFERS 64  /* pooled buffers that are made, and given back, together */
#define SLAB_SESSIONS TUNED(128, 4) /* sessions, likewise */
#define TRIM_TIME TUNED_SECONDS(1)  /* from a slab's last use to giving it back to the system */
#define RELEASED_SPOILT TUNED(0, 1) /* what is released is overwritten, so that late readers show */

/* ---- the steps ---- */

#define ACCEPTS 16            /* AcceptEx that each listener has posted */
#define BACKLOG_MOST 65535    /* connections that a closing listener takes from the system's queue: no queue is longer */
#define ACCEPT_PATIENCE 256   /* failures in a row that may each be one connection's own: then it is the listener's */
#define ACCEPT_RETRY_TIME TUNED_MILLISECONDS(50) /* between tries when accepting fails on and on */

#define RECEIVE_GATHER 16     /* pooled buffers of one WSARecv, at most */
#define CONTENDED_MORE 3      /* buffers beside the first while others wait that say little; fewer keep a worker longer */
#define IDLE_TIME TUNED_SECONDS(5) /* without data: then a session is to hold no receive buffer */
#define SELDOM 2 /* messages of a new session, or after an idle time, until it holds a buffer again while it waits */

#define SEND_GATHER 16        /* WSABUFs of one WSASend */
#define SEND_LIMIT 262144     /* of one WSASend: more would show no progress for too long */

#define STALL_TIME TUNED_SECONDS(30) /* without a send_timeout: a finishing session whose peer reads nothing is ended */
#define DRAIN_TIME TUNED_SECONDS(1)  /* that cancelled operations may take to end */
#define LEAVE_TIME (2 * DRAIN_TIME)  /* without progress after its drain: then a worker leaves what has not ended */

/* ---- the options of a session: what it has if nothing else is wanted, and the most that may be wanted ---- */

#define LINGER_DEFAULT TUNED_SECONDS(5) /* for the peer to end after us */
#define RECEIVE_DEFAULT (8 * RECEIVE_SIZE) /* of one receive, at most */
#define RECEIVE_MOST (RECEIVE_GATHER * RECEIVE_SIZE)
#define HIGH_WATER_DEFAULT 65536
#define LOW_WATER_DEFAULT (HIGH_WATER_DEFAULT / 4)
#define SEND_LIMIT_DEFAULT (64 << 20)
#define QUEUE_MOST (UINT64_C(1) << 40) /* of the three that count queued bytes */

#endif
