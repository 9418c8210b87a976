/* What completes operations on Linux: epoll (the reference) or io_uring. The contract of a backend.
 *
 * Ownership: port.c owns the port, its queue of finished operations and its posted packets. socket.c owns the state of
 * an associated socket, counted by references: one for being open, one for each operation until its packet was
 * dequeued. A backend owns the OVERLAPPED between a start() that answered EINPROGRESS and its port_complete().
 * Threads: everything runs on the port's owner; wake() alone may come from any thread.
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
    int undisturbed;              /* the owner's waits take no signals but faults */
    sigset_t blocked;             /* then */
    const void *owner;            /* the thread that may touch what follows */
    struct overlapped_queue done; /* finished, not yet dequeued */
    int done_first;               /* whose turn it was at the last dequeue */
    struct socket_slab **slabs;   /* of socket states, by number; NULL: given back */
    unsigned slab_count, slab_room;
    struct socket_slab *roomy;    /* slabs with room, the one that was full last first */
    uint32_t associated;          /* sockets, ever: the last one's generation */

    SRWLOCK lock; /* guards the posted packets */
    struct posted_packet *posted;
    size_t posted_first, posted_count, posted_room;
    int posted_waiting; /* atomic: posted_count != 0 */
    int sleeping;       /* atomic: the owner waits or is about to; who clears it must wake() */
};

struct iocp_socket {
    struct iocp_port *port;
    union {
        struct iocp_socket *next;  /* among its slab's spare ones */
        struct sockaddr_in6 *peer; /* in use: who was accepted, until somebody asks, or NULL */
    };
    ULONG_PTR key;
    SOCKET fd;
    uint32_t place;      /* in the port's slabs, which the port's next socket may get */
    uint32_t generation; /* which no other socket of the port has, for a long time */
    uint32_t references; /* 0: it is spare */
    uint32_t pending; /* operations the backend owns */
    unsigned skip : 1;
    unsigned registered : 1; /* epoll: the descriptor is in the set */
    unsigned readable : 1;   /* epoll: a receive or accept may find something */
    unsigned writable : 1;   /* epoll: a send may find room */
    unsigned sticky : 1;     /* epoll: a short receive no longer means that nothing is left */
    unsigned arrived : 1;    /* it was said that there is data, and nobody has looked since */
    struct overlapped_queue reading; /* the backend's: what pends, in the order of its start */
    struct overlapped_queue writing;
};

struct iocp_backend {
    const char *name;
    const char *(*missing)(void);                 /* NULL, or why it cannot run here */
    int (*open)(struct iocp_port *);              /* 0 or errno */
    void (*close)(struct iocp_port *);            /* any thread, when the owner uses it no more */
    void (*disown)(struct iocp_port *);           /* in a forked child: close(2) our copies of its descriptors, no more */
    int (*own)(struct iocp_port *);               /* the calling thread is the owner from now on; 0 or errno */
    int (*associate)(struct iocp_socket *);       /* 0 or errno */
    int (*start)(struct iocp_socket *, OVERLAPPED *); /* 0 (InternalHigh set), EINPROGRESS, or errno: a failed start */
    void (*cancel)(struct iocp_socket *, OVERLAPPED *); /* one that pends, or all (NULL); each still ends by a packet */
    void (*detach)(struct iocp_socket *); /* its descriptor is about to be closed: cancels all that pends */
    int (*has_come)(struct iocp_socket *, OVERLAPPED *); /* is there what one that pends waits for? A send may say no */
    void (*collect)(struct iocp_port *);  /* what has ended and the kernel still holds back; NULL: it holds nothing back */
    int (*wait)(struct iocp_port *, int64_t nanoseconds); /* completes what has finished; waits if negative or positive */
    void (*submit)(struct iocp_port *);           /* what was started is on its way, and need not wait for wait() */
    void (*wake)(struct iocp_port *);             /* any thread: wait() returns soon */
    uint64_t (*now)(struct iocp_port *);          /* monotonic nanoseconds */
};

extern const struct iocp_backend epoll_backend;
#ifdef IOCPCORE_URING
extern const struct iocp_backend uring_backend;
#endif

/* ---- port.c, for backends and socket.c ---- */
void port_assert_owner(struct iocp_port *port);
const sigset_t *port_signals(const struct iocp_port *port); /* to be blocked in a wait; NULL: as they are */
void port_complete(OVERLAPPED *overlapped, int status, size_t bytes); /* its packet is ready */

/* ---- socket.c ---- */
int socket_associate(SOCKET fd, struct iocp_port *port, ULONG_PTR key); /* 0 or errno */
struct iocp_socket *socket_find(SOCKET fd);                             /* NULL if not associated */
struct iocp_socket *socket_named(struct iocp_port *port, uint32_t place, uint32_t generation); /* NULL if it has gone */
void sockets_disown(void); /* in a forked child: closes its copies of the sockets of its parent's ports */
int socket_set_nonblocking(SOCKET fd); /* 0 or errno */
int socket_is_ready(SOCKET fd, const OVERLAPPED *overlapped); /* for what that waits for; of a send it says no */
int socket_accept(struct iocp_socket *s, OVERLAPPED *overlapped); /* what waits already; 0, EAGAIN, or another errno */
void socket_dereference(struct iocp_socket *s);
void sockets_trim(struct iocp_port *port); /* gives the memory of those that have gone back to the system */
void sockets_free(struct iocp_port *port); /* those still open are sockets of no port from now on */

/* Frees the copy of a long list of buffers, which few operations have: so few call free(). */
static inline void drop_copy(OVERLAPPED *overlapped)
{
    if (overlapped->copy != NULL) {
        free(overlapped->copy);
        overlapped->copy = NULL;
    }
}

/* The system calls of socket.c and port.c. A test may put its own in their place. */
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
