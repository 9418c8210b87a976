/* Who lives at the other end of the simulated wires: clients of an echo server, and echo servers for a load client.
 *
 * Ownership: peers_begin() makes them all, peers_end() frees them; their connections are the world's.
 * Threads: the world's.
 */
#ifndef IOCPCORE_TESTS_PEERS_H
#define IOCPCORE_TESTS_PEERS_H

#include "simulated.h"

enum { PEERS_PERIOD = 65521 };

struct peers;

/* What a listener's clients have to expect; bits. */
enum peers_custom {
    PEERS_TALK = 1,    /* what comes back is the same bytes, but as many as the core likes, and when it likes */
    PEERS_REFUSED = 2, /* it may close them at once: it serves enough */
    PEERS_TIMED = 4,   /* it may close them for having been slow */
    PEERS_HURRIED = 8  /* nobody may keep his connection for ever: others wait for it */
};

/* Chooses who they are by the world's chance, and settles them in it. The listeners and customs are the caller's. */
struct peers *peers_begin(const int *listeners, const unsigned *customs, unsigned listener_count);
void peers_end(struct peers *peers);

const unsigned char *peers_pattern(void); /* PEERS_PERIOD bytes, twice, of which all send */

/* How far a client is. */
struct peers_view {
    size_t offset;      /* where in the pattern it begins */
    uint64_t sent, got; /* bytes */
    int ended;          /* it has read to the end of what the core sent */
};

int peers_look(const struct peers *peers, const struct sim_connection *c, struct peers_view *view); /* 0: no client's */

int peers_done(const struct peers *peers); /* each has what it wanted, or will never want anything again */
void peers_are_stuck(const struct peers *peers);  /* nothing will ever happen again: a violation */

/* The core is about to close. Early: what is still to come may be lost. */
void peers_warn(struct peers *peers, int early);

/* When all is over: a violation if one did not get what it must get. */
void peers_check(const struct peers *peers);

#endif
