/* Who lives at the other end of the simulated wires: clients of an echo server, and echo servers for a load client.
 *
 * Ownership: peers_begin() makes them all, peers_end() frees them; their connections are the world's.
 * Threads: the world's.
 */
#ifndef IOCPCORE_TESTS_PEERS_H
#define IOCPCORE_TESTS_PEERS_H

#include "linux/simulated.h"

struct peers;

/* Chooses who they are by the world's chance, and settles them in it. The listeners are the caller's. */
struct peers *peers_begin(const int *listeners, unsigned listener_count);
void peers_end(struct peers *peers);

int peers_done(const struct peers *peers); /* each has what it wanted, or will never want anything again */
void peers_are_stuck(const struct peers *peers);  /* nothing will ever happen again: a violation */

/* The core is about to close. Early: what is still to come may be lost. */
void peers_warn(struct peers *peers, int early);

/* When all is over: a violation if one did not get what it must get. */
void peers_check(const struct peers *peers);

#endif
