/* The simulated kernel: completes what pends in any order, inline or later, in pieces, or not at all; all from one seed.
 *
 * Ownership: while an operation pends the world remembers its bytes and the core's to be sent, and scribbles on what is
 * to be received into; nothing of that may have changed when the packet is handed out. A connection is two rings of
 * bytes, kept until the world ends, so that people and late packets may refer to it.
 * Threads: none of its own. Time passes and things happen only inside wait(), sim_idle() and the people's own calls.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend.h"

#define NEVER UINT64_MAX
#define MICROSECOND UINT64_C(1000)
#define MILLISECOND UINT64_C(1000000)
#define SECOND UINT64_C(1000000000)

enum {
    FIRST_DESCRIPTOR = 1 << 23, /* far above what a process can have */
    DESCRIPTORS = 4096,
    PORTS = 8,
    REMEMBERED = 160,           /* bytes of an operation, at most */
    VIOLATION = 400,
};

/* What a connection carries one way. */
struct ring {
    char *bytes;
    size_t room, first, count;
};

struct sim_connection {
    unsigned number;
    struct ring to_core, to_peer;
    const char *excuse;       /* why it may end early */
    unsigned core_finished : 1; /* the core's end was shut down for sending, or closed */
    unsigned core_closed : 1;
    unsigned peer_finished : 1;
    unsigned peer_left : 1;
    unsigned reset : 1;
};

enum socket_kind { CLOSED, FRESH, LISTENING, CONNECTED };

struct sim_socket {
    enum socket_kind kind;
    int linger_zero;
    struct sim_connection *connection;
    int next_closed;
};

/* One that pends, or has ended and nobody has dequeued its packet. */
struct operation {
    OVERLAPPED *overlapped;
    struct iocp_socket *socket;        /* of socket.c */
    int fd;
    struct sim_connection *connection; /* NULL for an accept */
    uint64_t not_before;               /* neither progress nor its packet */
    size_t bytes;                      /* moved so far */
    int status;
    int accepted;
    unsigned ended : 1;
    unsigned cancelled : 1;
    unsigned char scribble;            /* what an untouched receive buffer is full of */
    uint64_t checksum;                 /* of what is to be sent */
    unsigned char remembered[REMEMBERED];
};

/* What the kernel of this seed is like: one in so many, 0 is never. Some seeds have no fault of a kind at all. */
struct mood {
    uint64_t inline_ends;       /* starts that are tried at once */
    uint64_t failed_starts;
    uint64_t errors;            /* of connections */
    uint64_t accept_errors;
    uint64_t refusals;          /* of associating and of connecting */
    uint64_t short_moves;
    uint64_t won_races;         /* cancelled operations that go on all the same */
    uint64_t slow_cancels;      /* ... that take longer to end than the core waits */
    uint64_t held_back;         /* packets that a dequeue leaves for later */
    uint64_t late_packets;
    uint64_t lateness;          /* nanoseconds, at most */
    uint64_t steps;             /* things that happen during a dequeue, at most */
    uint64_t step_time;         /* nanoseconds, at most */
    uint64_t ring_room;         /* bytes, at most */
};

struct sim_port {
    struct iocp_port *port;
    unsigned number;
    int asleep;
    uint64_t wakes_at;
};

struct world {
    uint64_t chance;
    uint64_t now;
    size_t operation_size;
    struct mood mood;
    struct sim_people people;
    struct sim_port ports[PORTS];
    unsigned port_count;
    struct sim_socket sockets[DESCRIPTORS];
    int sockets_made, first_closed; /* a closed number is the next to be given out */
    unsigned sockets_open;
    struct sim_connection **connections;
    unsigned connection_count;
    unsigned backlog_first; /* connections before it have left the backlog; between it and the last, `backlog` says */
    struct sim_connection **backlog;
    unsigned backlog_count;
    struct operation **operations;
    unsigned operation_count, operation_room;
    int telling;
    char *story;
    size_t story_length, story_room;
    char violation[VIOLATION];
    int crashed;
    sigjmp_buf way_out;
};

static struct world *world;
