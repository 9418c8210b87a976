/* The simulated kernel, as its tests see it: one world at a time, in memory, with one seed and one clock.
 *
 * Ownership: the world owns connections and their bytes; what it hands out lives until sim_end(). It holds the core's
 * memory as a kernel does: from a start that pends until the packet is dequeued, and there it finds every trespass.
 * Threads: one thread begins a world, owns all its ports and ends it.
 */
#ifndef IOCPCORE_LINUX_SIMULATED_H
#define IOCPCORE_LINUX_SIMULATED_H

#include "iocp.h"

extern const struct iocp_backend simulated_backend;

/* ---- the system calls of socket.c: simulated for simulated descriptors ---- */

int os_socket(int family, int type, int protocol);
int os_close(int fd);
int os_shutdown(int fd, int how);
int os_setsockopt(int fd, int level, int name, const void *value, socklen_t length);

/* ---- a world ---- */

struct sim_connection;

/* Who lives at the other end of the wires. */
struct sim_people {
    int (*act)(void *self);               /* somebody does one thing; 0 if nobody can now */
    uint64_t (*next_at)(void *self);      /* when somebody will who only waits for the clock; UINT64_MAX: nobody */
    void (*called)(void *self, struct sim_connection *); /* the core has connected to them */
    void *self;
};

/* operation_size: bytes from an OVERLAPPED on that must not change in flight. `telling`: write down what happens. */
void sim_begin(uint64_t seed, size_t operation_size, int telling);
void sim_settle(const struct sim_people *people); /* once, before the core connects or anybody acts */
void sim_end(void);

/* Calls the body. 0, or 1 if a violation or a crash ended it: then what the body had allocated is lost. */
int sim_run(void (*body)(void *), void *context);
void sim_violation(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
const char *sim_violated(void); /* NULL, or in words */
int sim_crashed(void);          /* the violation was a signal: this process is not to be trusted any more */

void sim_tell(const char *format, ...) __attribute__((format(printf, 1, 2))); /* a line of the story */
const char *sim_story(void);

uint64_t sim_random(void);
uint64_t sim_below(uint64_t limit);             /* 0 to limit - 1 */
uint64_t sim_scale(uint64_t least, uint64_t most); /* every order of magnitude is as likely as every other */
int sim_one_in(uint64_t n);                     /* 0: never */
uint64_t sim_now(void);

/* ---- the ports ---- */

int sim_runnable(HANDLE port);  /* its owner would not sleep in a dequeue, or would wake up now */
int sim_idle(void);             /* everybody sleeps: let something happen, or the time pass; 0 if nothing ever will */
unsigned sim_in_flight(HANDLE port);
OVERLAPPED *sim_operation(unsigned index); /* of all that the kernel owns; NULL past the last */

/* ---- descriptors ---- */

int sim_listen(void);                               /* a listening socket */
struct sim_connection *sim_connection_of(int fd);   /* NULL if it is none */
unsigned sim_open_descriptors(void);

/* ---- the other end ---- */

enum sim_read { SIM_DATA, SIM_NOTHING, SIM_END, SIM_RESET };

struct sim_connection *sim_connect(int listener); /* NULL: refused */
size_t sim_write(struct sim_connection *c, const void *bytes, size_t count); /* how many were taken */
enum sim_read sim_read(struct sim_connection *c, void *bytes, size_t room, size_t *count);
void sim_finish(struct sim_connection *c); /* sends no more */
void sim_leave(struct sim_connection *c);  /* closes; with unread bytes that is a reset */
void sim_reset(struct sim_connection *c);

unsigned sim_number(const struct sim_connection *c);    /* its name in the story */
size_t sim_room(const struct sim_connection *c);        /* bytes that it may move at a time, at most */
int sim_core_closed(const struct sim_connection *c);    /* the core has closed its end */
void sim_excuse(struct sim_connection *c, const char *why); /* it may end early from now on */
const char *sim_excused(const struct sim_connection *c);    /* why, or NULL */

#endif
