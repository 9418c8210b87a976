/* The contract of a backend: it completes operations on Linux, by epoll (the reference) or io_uring.
 *
 * Ownership: port.c owns the port, its queue of finished operations and its posted packets. socket.c owns the states of
 * associated sockets. A state is reference-counted: one reference while the socket is open, and one for each operation
 * until its packet was dequeued. A backend owns an OVERLAPPED from a start() that returned EINPROGRESS until it calls
 * port_complete().
 * Threads: everything runs in the thread that owns the port. Any thread may call wake(), and close() once the owner no
 * longer uses the port.
 */
#ifndef IOCPCORE_LINUX_BACKEND_H
#define IOCPCORE_LINUX_BACKEND_H

#include <signal.h>
#include <stdlib.h>

#include "overlapped.h"
#include "tuning.h"

struct posted_packet {
    ULONG_PTR key;
    OVERLAPPED *overlapped;
    DWORD bytes;
};

struct iocp_port {
    const struct iocp_backend *backend;
    void *backend_data;
    struct iocp_port *next_open;  /* under port.c's lock */
    int undisturbed;              /* the owner waits with the mask `blocked` */
    sigset_t blocked;             /* all signals but those of faults */
    const void *owner;            /* the thread that alone touches the fields up to `lock` */
    struct overlapped_queue done; /* finished operations whose packets are not yet dequeued */
    int done_first;               /* the last dequeue took `done` before the posted packets */
    struct socket_slab **slabs;   /* of socket states, by number; NULL: given back */
    unsigned slab_count, slab_room;
    struct socket_slab *roomy;    /* slabs with room; the one that was full last comes first */
    uint32_t associated;          /* sockets so far, which is also the newest one's generation */

    SRWLOCK lock; /* guards the posted packets */
    struct posted_packet *posted;
    size_t posted_first, posted_count, posted_room;
    int posted_waiting; /* atomic: posted_count != 0 */
    int sleeping;       /* atomic: the owner waits or is about to; another thread that clears it must call wake() */
};

struct iocp_socket {
    struct iocp_port *port;
    union {
        struct iocp_socket *next;  /* spare: the next spare state of the slab */
        struct sockaddr_in6 *peer; /* in use: the accepted peer's address until iocp_peer_name(), or NULL */
    };
    ULONG_PTR key;
    SOCKET fd;
    uint32_t place;      /* of this state in the port's slabs; later sockets reuse it */
    uint32_t generation; /* unique in the port until the 32-bit count wraps */
    uint32_t references; /* 0: the state is spare */
    uint32_t pending; /* operations the backend owns */
    unsigned skip : 1;
    unsigned registered : 1; /* epoll: the descriptor is in the set */
    unsigned readable : 1;   /* epoll: a receive or accept may succeed */
    unsigned writable : 1;   /* epoll: a send may succeed */
    unsigned sticky : 1;     /* epoll: after an end, error or urgent data, when a short receive proves nothing */
    unsigned arrived : 1;    /* data was reported, and no receive has looked since */
    struct overlapped_queue reading; /* the backend's: pending operations in the order of their starts */
    struct overlapped_queue writing;
};

struct iocp_backend {
    const char *name;
    const char *(*missing)(void);                 /* NULL, or why it cannot run here */
    int (*open)(struct iocp_port *);              /* 0 or errno */
    void (*close)(struct iocp_port *);            /* any thread, once the owner no longer uses it */
    void (*disown)(struct iocp_port *);           /* in a forked child: only close(2) its copies of the descriptors */
    int (*own)(struct iocp_port *);               /* the calling thread is the owner from now on; 0 or errno */
    int (*associate)(struct iocp_socket *);       /* 0 or errno */
    int (*start)(struct iocp_socket *, OVERLAPPED *); /* 0 (InternalHigh set), EINPROGRESS, or errno: a failed start */
    void (*cancel)(struct iocp_socket *, OVERLAPPED *); /* a pending one, or all (NULL); each ends by a packet */
    void (*detach)(struct iocp_socket *); /* before its descriptor is closed: cancels all pending operations */
    int (*has_come)(struct iocp_socket *, OVERLAPPED *); /* can a pending one end now? For a send 0 is allowed */
    void (*collect)(struct iocp_port *);  /* reaps results that the kernel still holds back; NULL: it holds none back */
    int (*wait)(struct iocp_port *, int64_t nanoseconds); /* completes what has finished; 0: no wait, < 0: no limit */
    void (*submit)(struct iocp_port *);           /* gives the kernel what was started, before the next wait() */
    void (*wake)(struct iocp_port *);             /* any thread: wait() returns soon */
    uint64_t (*now)(struct iocp_port *);          /* monotonic nanoseconds */
};

extern const struct iocp_backend epoll_backend;
#ifdef IOCPCORE_URING
extern const struct iocp_backend uring_backend;
#endif

/* ---- port.c, for backends and socket.c ---- */
void port_assert_owner(struct iocp_port *port);
const sigset_t *port_signals(const struct iocp_port *port); /* the mask for a wait; NULL: the thread's own */
void port_complete(OVERLAPPED *overlapped, int status, size_t bytes); /* its packet is ready */

/* ---- socket.c ---- */
int socket_associate(SOCKET fd, struct iocp_port *port, ULONG_PTR key); /* 0 or errno */
struct iocp_socket *socket_find(SOCKET fd);                             /* NULL if not associated */
struct iocp_socket *socket_named(struct iocp_port *port, uint32_t place, uint32_t generation); /* NULL: closed */
void sockets_disown(void); /* in a forked child: closes its copies of the sockets of its parent's ports */
int socket_set_nonblocking(SOCKET fd); /* 0 or errno */
int socket_is_ready(SOCKET fd, const OVERLAPPED *overlapped); /* can this operation end now? 0 for a send */
int socket_accept(struct iocp_socket *s, OVERLAPPED *overlapped); /* without waiting; 0, EAGAIN, or another errno */
void socket_dereference(struct iocp_socket *s);
void sockets_trim(struct iocp_port *port); /* gives slabs without a socket back to the system */
void sockets_free(struct iocp_port *port); /* sockets still open then belong to no port */

/* Frees the copy that a call made. Few operations have one, so this check spares most of them a call of free(). */
static inline void drop_copy(OVERLAPPED *overlapped)
{
    if (overlapped->copy != NULL) {
        free(overlapped->copy);
        overlapped->copy = NULL;
    }
}

/* The system calls of socket.c and port.c. The simulation defines its own instead. */
#ifndef OTHER_SYSTEM_CALLS
#define os_socket socket
#define os_poll poll
#define os_accept(fd, name, length) accept4(fd, name, length, SOCK_CLOEXEC)
#define os_close close
#define os_connect connect
#define os_shutdown shutdown
#define os_update(fd) ((void)(fd), 0)
#define os_setsockopt setsockopt
#define os_getsockopt getsockopt
#define os_mmap mmap
#define os_munmap munmap
#define os_getsockname getsockname
#define os_getpeername getpeername
#endif

#endif
