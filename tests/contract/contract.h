/* The contract suite of the completion port calls: one set of cases for every backend on Linux, and for Windows.
 *
 * A case is a function; the suite gives it a fresh port and cleans up behind it: it cancels what still pends, waits until
 * every operation has ended exactly once, closes every socket, and sees that no packet and no descriptor is left over.
 * Ownership: operations and kept sockets belong to the suite until the case has ended, so a case frees nothing, and a
 * packet that comes twice is found and not a crash.
 * Threads: the main thread owns the port and runs the case. What another thread may do is said at each function.
 * Nothing here is GCC's own: the Windows build must pass with any compiler.
 */
#ifndef CONTRACT_H
#define CONTRACT_H

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "iocp.h"

struct test_case {
    const char *name;
    void (*run)(void);
};
#define CASE(name) {#name, name}
#define END_OF_CASES {NULL, NULL}

extern const struct test_case post_cases[], associate_cases[], accept_cases[], connect_cases[], receive_cases[],
    send_cases[], cancel_cases[], close_cases[], shared_cases[], storm_cases[];
#ifdef _WIN32
#define ON_WINDOWS 1
extern const struct test_case windows_cases[];
#else
#define ON_WINDOWS 0
extern const struct test_case linux_cases[];
#endif

/* ---- failing and skipping: any thread; they end the process ---- */

_Noreturn void fail(const char *file, int line, const char *what);
_Noreturn void skip(const char *why);
void check_equal(long long a, long long b, const char *file, int line, const char *what);
#define CHECK(condition) ((condition) ? (void)0 : fail(__FILE__, __LINE__, #condition))
#define CHECK_EQUAL(a, b) check_equal((long long)(a), (long long)(b), __FILE__, __LINE__, #a " == " #b)

/* ---- the running case ---- */

extern HANDLE port;
extern int backend;
extern int skipping; /* sockets adopted from now on post no packet for an inline success */

void case_begin(void);
void case_end(void);
HANDLE another_port(void); /* the caller closes it */
uint64_t patience(void);   /* when a wait of the main thread is over, in iocp_now()'s time */

/* ---- operations ---- */

enum how { PENDING, INLINE, FAILED };

struct operation {
    OVERLAPPED overlapped; /* first: a packet's OVERLAPPED is its operation */
    struct operation *next;
    SOCKET socket;
    SOCKET placeholder; /* of an accept, until its socket is adopted */
    int accepts;        /* it is an accept whose socket nobody has adopted */
    enum how how;       /* it started */
    int ended;          /* by a packet, an inline success that posts none, or a failed start */
    int status;         /* 0 or an error number, once ended */
    DWORD bytes;
    int packets;
    char *data;
    size_t size;
    char addresses[2 * (sizeof(SOCKADDR_STORAGE) + 16)];
};

struct address {
    SOCKADDR_STORAGE name;
    int length;
};

struct operation *operation_new(SOCKET s, size_t size);
struct operation *start_accept(SOCKET listener);
struct operation *start_connect(SOCKET s, const struct address *to);
struct operation *start_receive(SOCKET s, size_t size);
struct operation *start_receive_into(SOCKET s, WSABUF *buffers, DWORD count);
struct operation *start_send(SOCKET s, const void *data, size_t size); /* copies data */
struct operation *start_send_from(SOCKET s, WSABUF *buffers, DWORD count);
struct operation *start_send_pattern(SOCKET s, size_t size, size_t position);
void restart_receive(struct operation *ended); /* the same OVERLAPPED, zeroed, and the same buffer */
BOOL cancel(SOCKET s, struct operation *operation_or_null);

ULONG pump(DWORD milliseconds);       /* dequeues one batch; how many packets it had */
void pump_all(void);                  /* until no packet is left now */
int wait_for(struct operation *op);   /* pumps until it has ended; its status */
int status_of(const OVERLAPPED_ENTRY *entry);
int is_reset(int status);             /* the peer has gone */
int is_closed_under(int status);      /* what ends a receive that pends when its socket is closed */

/* ---- sockets of the port ---- */

struct pair {
    SOCKET own;  /* of the port */
    SOCKET peer; /* a plain one */
};

SOCKET adopt(SOCKET s);           /* associates it; the suite closes it */
SOCKET new_own(int family);       /* a fresh one of the port */
void close_own(SOCKET s);
SOCKET listen_own(struct address *at, int backlog); /* on IPv4 loopback */
SOCKET adopt_accepted(struct operation *accepted);  /* with its accept context updated */
struct pair connected_pair(void);
int own_in_use(SOCKET s); /* is it of the port, and open? */
SOCKET duplicate(SOCKET s); /* the caller closes it */

/* ---- plain sockets, non-blocking; waiting for one pumps the port, so that its operations go on ---- */

enum { PEER_END = 0, PEER_NOTHING = -1, PEER_RESET = -2 };

SOCKET non_blocking(SOCKET s); /* itself */
SOCKET peer_socket(int family);
struct address refusing_address(void); /* of a socket that is bound and does not listen */
SOCKET peer_listen(struct address *at, int family, int backlog);
int peer_try_connect(SOCKET s, const struct address *to); /* begins; 1 if it did */
SOCKET peer_connect(const struct address *to);
SOCKET peer_accept(SOCKET listener);
size_t peer_send_some(SOCKET s, const void *data, size_t size); /* what there is room for */
void peer_send(SOCKET s, const void *data, size_t size);
void peer_send_pattern(SOCKET s, size_t size, size_t position);
int peer_receive_some(SOCKET s, void *data, size_t size); /* bytes, or PEER_... */
int peer_receive_next(SOCKET s, void *data, size_t size); /* the same, never PEER_NOTHING */
void peer_expect(SOCKET s, const void *data, size_t size);
void peer_expect_pattern(SOCKET s, size_t size, size_t position);
void peer_finish(SOCKET s); /* sends its end */
void peer_urgent(SOCKET s, char byte);
void peer_wait_readable(SOCKET s);
void peer_small_buffers(SOCKET s);
void peer_close(SOCKET s);
void peer_reset(SOCKET s);
struct address loopback_address(int family, const struct address *with_port);
struct address address_of(SOCKET s);
struct address peer_address_of(SOCKET s);

/* ---- the rest ---- */

void pattern(char *data, size_t size, size_t position); /* bytes that tell their position in a stream */
int is_pattern(const char *data, size_t size, size_t position);
void want_ipv6(void);                  /* skips the case without it */
void want_descriptors(unsigned count); /* skips it if the system grants less */
uint32_t random_below(uint32_t limit); /* seeded for each case */
void random_seed(uint32_t seed);

struct thread;
struct thread *thread_start(void (*run)(void *), void *argument);
void thread_join(struct thread *thread);

#endif
