/* The peers at the other end of the simulated wires: clients of an echo server, and echo servers for a load client.
 *
 * Ownership: peers_begin() makes them all, peers_end() frees them; their connections are the world's.
 * Threads: the world's.
 */
#ifndef IOCPCORE_TESTS_PEERS_H
#define IOCPCORE_TESTS_PEERS_H

#include "simulated.h"

enum { PEERS_PERIOD = 65521 };

struct peers;

/* What a listener's clients must put up with; bits. */
enum peers_custom {
    PEERS_TALK = 1,    /* the same bytes come back, but as many as the handler likes, and when it likes */
    PEERS_REFUSED = 2, /* it may close them at once, because it serves enough */
    PEERS_TIMED = 4,   /* it may close them for being slow */
    PEERS_PAIRS = 16,  /* bytes come back in pairs */
    PEERS_HURRIED = 8  /* none may keep its connection for ever: others wait for a place */
};

/* Draws the peers at random, and adds them to the world. The listeners and customs are the caller's. */
struct peers *peers_begin(const int *listeners, const unsigned *customs, unsigned listener_count);
void peers_end(struct peers *peers);

const unsigned char *peers_pattern(void); /* PEERS_PERIOD bytes, twice: all peers send stretches of it */

/* How far a client has got. */
struct peers_view {
    size_t offset;      /* where in the pattern it begins */
    uint64_t sent, got; /* bytes */
    int ended;          /* it has read to the end of what the core sent */
};

int peers_look(const struct peers *peers, const struct sim_connection *c, struct peers_view *view); /* 0: no client's */

int peers_done(const struct peers *peers); /* each is gone, or has all it wanted */
void peers_are_stuck(const struct peers *peers);  /* a violation: nothing can happen any more */

/* The core is about to close. `early`: before all clients are done, so that bytes may be lost. */
void peers_warn(struct peers *peers, int early);

/* At the end: a violation if a connection is not closed, or a client still waits. */
void peers_check(const struct peers *peers);

#endif
