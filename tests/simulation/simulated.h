/* The simulated kernel, as its tests see it: one world at a time, in memory, with one seed and one clock.
 *
 * Ownership: the world owns connections and their bytes; what it hands out lives until sim_end(). It holds the core's
 * memory as a kernel does, from a start that pends until the packet is dequeued, and checks that nothing changes it.
 * The sources of the calls are compiled with this file included first: their system calls become simulated ones.
 * Threads: one thread begins a world, owns all its ports and ends it.
 */
#ifndef IOCPCORE_TESTS_SIMULATED_H
#define IOCPCORE_TESTS_SIMULATED_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* before a file can define it itself */
#endif
#include "iocp.h"

struct iocp_backend;
extern const struct iocp_backend simulated_backend;
#define FIRST_BACKEND &simulated_backend
extern unsigned sim_mutant; /* the deliberate fault that is active, by its number in mutants.diff; 0: none */

/* ---- the system calls of socket.c: simulated for simulated descriptors ---- */

#define OTHER_SYSTEM_CALLS

int os_socket(int family, int type, int protocol);
int os_close(int fd);
struct pollfd;
int os_poll(struct pollfd *asked, unsigned long count, int milliseconds); /* of a listening socket, without waiting */
int os_accept(int fd, struct sockaddr *name, socklen_t *length); /* name and length are not filled in */
#define os_connect(fd, name, length) ((void)(fd), (void)(name), 0) /* to no peer: a reset by closing is enough here */
int os_shutdown(int fd, int how);
int os_update(int fd); /* SO_UPDATE_..._CONTEXT: 0 or an error number */
int os_setsockopt(int fd, int level, int name, const void *value, socklen_t length);
int os_getsockopt(int fd, int level, int name, void *value, socklen_t *length);
/* Pages come from the heap, so that they are counted and can be short. */
#define os_mmap(at, size, protection, flags, fd, offset) sim_pages(calloc(1, size))
#define os_munmap(pages, size) free(pages)
static inline void *sim_pages(void *pages)
{
    return pages != NULL ? pages : (void *)-1; /* MAP_FAILED */
}
int os_getsockname(int fd, struct sockaddr *name, socklen_t *length);
int os_getpeername(int fd, struct sockaddr *name, socklen_t *length);

/* ---- a world ---- */

struct sim_connection;

/* The people: the peers at the other end of the wires. */
struct sim_people {
    int (*act)(void *self);               /* one of them does one thing; 0 if none can now */
    uint64_t (*next_at)(void *self);      /* when one that waits for the clock goes on; UINT64_MAX: never */
    void (*called)(void *self, struct sim_connection *); /* the core has connected to them */
    void *self;
};

/* What a kernel may do besides what it is asked to. A seed's kernel has some of these whims. */
enum sim_whim {
    SIM_INLINE_ENDS,      /* a start is tried at once */
    SIM_BUSY,             /* something else happens during a start */
    SIM_FAILED_STARTS,
    SIM_ERRORS,           /* a connection fails */
    SIM_ACCEPT_ERRORS,
    SIM_REFUSALS,         /* to associate and to connect */
    SIM_SHORT_MOVES,
    SIM_SHORT_SENDS,      /* a send succeeds before all is sent */
    SIM_LOST_CANCELS,     /* a cancelled operation succeeds all the same */
    SIM_SLOW_CANCELS,     /* ... or takes longer to end than the core waits */
    SIM_SLOW_DRAINS,      /* a closed socket's operations take long to end, perhaps longer than the core lives */
    SIM_LATE_PACKETS,
    SIM_HELD_BACK,        /* a dequeue leaves a packet for a later one */
    SIM_FAILED_DEQUEUES,  /* without a packet, and not by timeout */
    SIM_TIMEOUT_SAYS_ONE, /* a dequeue that times out counts one packet */
    SIM_SCARCE_MEMORY,    /* an allocation of the core, or a post, fails */
    SIM_FEW_DESCRIPTORS,
    SIM_AS_WINDOWS, /* it answers as Windows does, where Linux and wine are kinder: docs/windows.md */
    SIM_FAILED_UPDATES, /* ... of an accepted or connected socket's context */
    SIM_WHIMS
};

const char *sim_whim_name(int whim); /* NULL past the last */

/* Upper limits for what the seed chooses, by which a schedule that fails is made small. */
struct sim_limits {
    uint64_t salt;   /* another order of events in the same world; 0: the seed's own */
    uint64_t calm;   /* whims that never come: bits by enum sim_whim */
    uint64_t absent; /* clients that never connect: bits */
    uint64_t workers, listeners, calls, bytes; /* at most; bytes of each client */
    uint64_t python; /* 0: no handlers in Python */
    uint64_t layer;  /* 0: the user's bytes are the wire's */
};

/* operation_size: bytes from an OVERLAPPED on that must not change in flight. `telling`: write the story. */
void sim_begin(uint64_t seed, const struct sim_limits *limits, size_t operation_size, int telling);
void sim_settle(const struct sim_people *people); /* once, before the core connects or any peer acts */
void sim_shuffle(void);                           /* the world is laid out: mixes the salt into all later chance */
const struct sim_limits *sim_limits(void);
void sim_end(void);

/* Calls the body. 0, or 1 if a violation or a crash ended it: then the body's memory is lost. */
int sim_run(void (*body)(void *), void *context);
void sim_violation(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
const char *sim_violated(void); /* NULL, or in words */
int sim_crashed(void);          /* the violation was a signal: this process is not to be trusted any more */

void sim_tell(const char *format, ...) __attribute__((format(printf, 1, 2))); /* a line of the story */
const char *sim_story(void);

uint64_t sim_random(void);
uint64_t sim_below(uint64_t limit);             /* 0 to limit - 1 */
uint64_t sim_scale(uint64_t least, uint64_t most); /* each power of two is as likely as any other */
int sim_one_in(uint64_t n);                     /* 0: never */
uint64_t sim_now(void);

/* ---- the ports ---- */

int sim_runnable(HANDLE port);  /* its owner would not sleep in a dequeue, or would wake up now */
int sim_idle(void);             /* all workers sleep: something happens, or time passes; 0 if nothing ever will */
unsigned sim_in_flight(HANDLE port);
int sim_came_by(const OVERLAPPED *receive, uint64_t by); /* had something come for this receive before then? */
unsigned sim_failed_dequeues(HANDLE port); /* simulated failures */
OVERLAPPED *sim_operation(unsigned index); /* those that the kernel owns; NULL past the last */
void sim_check_memory(void);               /* a violation if memory that the kernel owns was changed */

/* The core's dequeues and posts. */
BOOL sim_dequeue(HANDLE port, OVERLAPPED_ENTRY *entries, ULONG count, ULONG *removed, DWORD milliseconds,
                 BOOL alertable);
BOOL sim_post(HANDLE port, DWORD bytes, ULONG_PTR key, OVERLAPPED *overlapped);

/* ---- memory ---- */

void sim_make_memory_scarce(int scarce); /* may allocations fail from now on? At first not */
int sim_memory_is_short(void);           /* an allocation asks: must it fail? */

/* ---- descriptors ---- */

int sim_listen(void);                               /* a listening socket */
struct sim_connection *sim_connection_of(int fd);   /* NULL if it is none */
unsigned sim_open_descriptors(void);
int sim_as_windows(void);
int sim_few_descriptors(void); /* no peer may keep one for ever */
unsigned sim_unread_closes(void); /* times that the core closed with unread input, and destroyed what it had sent */

/* ---- the other end ---- */

int sim_layered(void); /* the bytes on the wire are records: records.h */

enum sim_read { SIM_DATA, SIM_NOTHING, SIM_END, SIM_RESET };

struct sim_connection *sim_connect(int listener); /* NULL: refused */
size_t sim_write(struct sim_connection *c, const void *bytes, size_t count); /* how many were taken */
enum sim_read sim_read(struct sim_connection *c, void *bytes, size_t room, size_t *count);
void sim_finish(struct sim_connection *c); /* sends no more */
void sim_leave(struct sim_connection *c);  /* closes; with unread input that is a reset */
void sim_reset(struct sim_connection *c);

unsigned sim_number(const struct sim_connection *c);    /* its number in the story */
size_t sim_room(const struct sim_connection *c);        /* bytes that it may move at a time, at most */
int sim_core_closed(const struct sim_connection *c);    /* the core has closed its end */
int sim_was_reset(const struct sim_connection *c);      /* by either end, or it has failed */
uint64_t sim_taken(const struct sim_connection *c);     /* how many of the user's bytes the core has sent */
void sim_excuse(struct sim_connection *c, const char *why); /* it may end early from now on */
const char *sim_excused(const struct sim_connection *c);    /* why, or NULL */

#endif
