/* The I/O completion port calls on Linux: the subset the core uses, with the meaning of the Win32 documentation.
 *
 * Contract, and every difference in meaning
 *  1. One thread owns a port: the first that associates a socket or dequeues. Associating, starting, cancelling,
 *     closing an associated socket and dequeuing happen on it, and abort() says so if they do not.
 *     PostQueuedCompletionStatus alone may come from any thread.
 *  2. On io_uring WSARecv, WSASend, AcceptEx and ConnectEx only queue; the next dequeue submits all of them and waits,
 *     in one system call; iocp_submit() is for who does not dequeue soon. A WSASend of more than 16 KiB is tried at once.
 *  3. A start succeeds inline (TRUE or 0), pends (WSA_IO_PENDING), or fails (any other error: no packet will come).
 *     As on Windows an inline success posts a packet too, unless FILE_SKIP_COMPLETION_PORT_ON_SUCCESS was set.
 *  4. SOCKET is the descriptor. What is kept for it lives until its last packet was dequeued, because the number is
 *     reused at once: nothing of the old socket ever reaches the next owner of the number.
 *  5. OVERLAPPED and data buffers belong to the port from before the start until their packet was dequeued. The WSABUF
 *     array and the address of ConnectEx are copied by the call.
 *  6. Every operation that was started ends exactly once: packet, inline success or failed start. closesocket()
 *     cancels what is pending; those packets still come, with ERROR_OPERATION_ABORTED.
 *  7. Error numbers are the system's own: Internal holds STATUS_PENDING, 0 or an errno, and the names of the Windows
 *     errors that the core compares are names of errnos here.
 *  8. CloseHandle(port) wants nothing in flight and nobody waiting.
 *  9. AcceptEx makes the accepted socket itself: pass INVALID_SOCKET, and ask iocp_accepted() for the descriptor. The
 *     receive length must be 0, and nothing is written to the buffer: iocp_peer_name() tells the address.
 * 10. Have one send in flight on a socket: on io_uring the bytes of two may mix. Windows and epoll keep their order.
 * 11. Signals are not ours: a wait that a signal interrupts goes on until its deadline.
 * 12. A forked child has nothing of its parent's ports and their sockets: fork() closes its copies.
 *
 * Undefined: an OVERLAPPED that was not zeroed before a start; two threads in one port; a descriptor that is closed
 * with close() while it is associated.
 */
#ifndef IOCPCORE_LINUX_IOCP_H
#define IOCPCORE_LINUX_IOCP_H

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

typedef int BOOL;
typedef uint32_t DWORD;
typedef uint32_t ULONG;
typedef int32_t LONG;
typedef int64_t LONG64;
typedef uintptr_t ULONG_PTR;
typedef void *HANDLE;
typedef int SOCKET;
typedef struct sockaddr_storage SOCKADDR_STORAGE;

#ifndef TRUE
#define TRUE 1
#define FALSE 0
#endif
#define INFINITE 0xFFFFFFFFu
#define INVALID_HANDLE_VALUE ((HANDLE)(intptr_t)-1)
#define INVALID_SOCKET (-1)
#define SOCKET_ERROR (-1)
#define FILE_SKIP_COMPLETION_PORT_ON_SUCCESS 1
#define STATUS_PENDING 0x103

#define ERROR_SUCCESS 0
#define ERROR_IO_PENDING EINPROGRESS
#define WSA_IO_PENDING EINPROGRESS
#define ERROR_OPERATION_ABORTED ECANCELED
#define ERROR_NOT_FOUND ENOENT
#define ERROR_NOT_SUPPORTED EOPNOTSUPP
#define ERROR_INVALID_PARAMETER EINVAL
#define ERROR_NO_SYSTEM_RESOURCES ENOBUFS
#define ERROR_WORKING_SET_QUOTA ENOMEM
#define ERROR_NOT_ENOUGH_QUOTA ENFILE
#define WSAEMFILE EMFILE
#define WSAENOBUFS ENOBUFS
#define WSAENOTCONN ENOTCONN
#define WSAECONNRESET ECONNRESET
#define WSAECONNABORTED ECONNABORTED
#define WSAECONNREFUSED ECONNREFUSED
#define WSAESHUTDOWN EPIPE
#define WSAETIMEDOUT ETIMEDOUT
#define WAIT_TIMEOUT 258 /* not an errno: no system call can have set it */

/* Both calls read one thread-local number here. */
#define GetLastError() ((DWORD)errno)
#define WSAGetLastError() (errno)

typedef struct {
    ULONG len;
    char *buf;
} WSABUF;

struct iocp_socket;

typedef struct _OVERLAPPED {
    ULONG_PTR Internal;     /* STATUS_PENDING, 0 or an errno */
    ULONG_PTR InternalHigh; /* bytes transferred, valid once Internal is no longer STATUS_PENDING */
    /* private to the port from here */
    struct _OVERLAPPED *next;
    struct iocp_socket *socket;
    void *copy;         /* what the call had to copy: several WSABUFs, or ConnectEx's address */
    struct iovec first; /* the iovec array of a call with one WSABUF */
    uint16_t buffers;
    uint8_t kind;
    uint8_t flags;
    SOCKET accepted;
} OVERLAPPED;

typedef struct {
    ULONG_PTR lpCompletionKey;
    OVERLAPPED *lpOverlapped;
    ULONG_PTR Internal;
    DWORD dwNumberOfBytesTransferred;
} OVERLAPPED_ENTRY;

/* ---- the port: port.c ---- */

/* With INVALID_HANDLE_VALUE a new port on the default backend; else associates the socket `file` with `port`. */
HANDLE CreateIoCompletionPort(HANDLE file, HANDLE port, ULONG_PTR key, DWORD threads);
BOOL GetQueuedCompletionStatusEx(HANDLE port, OVERLAPPED_ENTRY *entries, ULONG count, ULONG *removed, DWORD milliseconds,
                                 BOOL alertable);
BOOL PostQueuedCompletionStatus(HANDLE port, DWORD bytes, ULONG_PTR key, OVERLAPPED *overlapped);
BOOL CloseHandle(HANDLE port);

/* ---- sockets: socket.c ---- */

BOOL SetFileCompletionNotificationModes(HANDLE file, unsigned char flags);
BOOL AcceptEx(SOCKET listener, SOCKET placeholder, void *buffer, DWORD receive_length, DWORD local_length,
              DWORD remote_length, DWORD *received, OVERLAPPED *overlapped);
BOOL ConnectEx(SOCKET s, const struct sockaddr *name, int name_length, void *send_buffer, DWORD send_length, DWORD *sent,
               OVERLAPPED *overlapped);
int WSARecv(SOCKET s, WSABUF *buffers, DWORD count, DWORD *received, DWORD *flags, OVERLAPPED *overlapped, void *routine);
int WSASend(SOCKET s, WSABUF *buffers, DWORD count, DWORD *sent, DWORD flags, OVERLAPPED *overlapped, void *routine);
BOOL CancelIoEx(HANDLE file, OVERLAPPED *overlapped);
int closesocket(SOCKET s);

/* ---- where the systems differ ---- */

#define IOCP_BACKENDS 3 /* names that a build can know; iocp_backend_name() is NULL past the last */

int iocp_startup(void);                        /* 0 or an error number; idempotent */
const char *iocp_backend_name(int index);      /* "epoll", "uring", ...; NULL past the last */
const char *iocp_backend_missing(int index);   /* NULL if it can run here, else why not, in words */
int iocp_backend_find(const char *name);       /* its index; "auto" gives the best that can run; -1 unknown */
const char *iocp_backend_absent(const char *name); /* of an unknown one that other builds have: why not this; else NULL */
HANDLE iocp_open_port(int backend);            /* NULL and errno on failure */
int iocp_claim(SOCKET s, HANDLE port, ULONG_PTR key); /* any thread: for that port, NULL: shared. 0, or an error: taken */
void iocp_unclaim(SOCKET s);                         /* if it was not associated; on Windows it stays the port's */
int iocp_associate_claimed(SOCKET s, HANDLE port, ULONG_PTR key); /* in the port's thread; 0 or an error number */
SOCKET iocp_socket(HANDLE port, int family);   /* a TCP socket: overlapped, not inheritable */
int iocp_accept_placeholder(int family, SOCKET *placeholder); /* AcceptEx's second argument; 0 or an error number */
SOCKET iocp_accept_waiting(SOCKET listener);   /* a connection that waits for an accept; INVALID_SOCKET: none can be had */
SOCKET iocp_accepted(SOCKET placeholder, const OVERLAPPED *overlapped);
int iocp_update_accepted(SOCKET s, SOCKET listener); /* SO_UPDATE_ACCEPT_CONTEXT; 0 or an error number */
int iocp_update_connected(SOCKET s);                 /* SO_UPDATE_CONNECT_CONTEXT */
int iocp_bind_for_connect(SOCKET s, int family);     /* to any address: ConnectEx wants a bound socket on Windows */
int iocp_skip_on_success(SOCKET s);                  /* 1: inline successes will post no packet */
int iocp_lingers(SOCKET s);                          /* would closing it wait, or reset? SO_LINGER */
void iocp_linger_off(SOCKET s);
void iocp_linger_zero(SOCKET s);                     /* closing will reset */
int iocp_no_delay(SOCKET s);                         /* 0 or an error number; so the two below */
#define IOCP_INHERITS_NO_DELAY 1                     /* an accepted socket has it from the listening one */
#define IOCP_LATE_PORT_LEVEL 0                       /* a socket option: bind() to port 0 leaves the choice of a port */
#define IOCP_LATE_PORT 24                            /* to connect(); IP_BIND_ADDRESS_NO_PORT, which old headers lack */
#define IOCP_BUFFERS_ENOUGH 64                       /* posted at a time: waiting without one first costs little here */
#define IOCP_CANCEL_SPARES 1                         /* a receive may be cancelled, and its connection goes on */
int iocp_keep_alive(SOCKET s, unsigned idle, unsigned interval, unsigned probes); /* seconds, seconds, a number */
void iocp_own_name(SOCKET s, SOCKADDR_STORAGE *name); /* its family is 0 if it is not known; so the next */
void iocp_peer_name(SOCKET s, SOCKADDR_STORAGE *name); /* of an accepted one known after a reset too, but told once */
int iocp_was_connected(SOCKET s);                    /* it has no peer: has it had one, which has reset? */
#define iocp_accept_buffer(buffer, wanted) ((wanted) ? (buffer) : NULL) /* AcceptEx's: will iocp_peer_name() be asked? */
int iocp_shutdown_send(SOCKET s);                    /* 0 or an error number */
void iocp_stop_listening(SOCKET s);                  /* accept nothing from now on, whoever else holds the socket */
void iocp_break_off(SOCKET s);                       /* reset its connection now, whoever else holds the socket */
uint64_t iocp_taken(SOCKET s);                       /* bytes of ours that the peer's system has; 0: not known */
int iocp_has_come(SOCKET s, OVERLAPPED *overlapped);   /* it has ended, or will now; its packet may not be here yet */
int iocp_has_ended(SOCKET s, OVERLAPPED *overlapped);  /* its packet waits for a dequeue, or none is to come */
int iocp_has_forked(void);                           /* then a child may hold our descriptors, and close() ends nothing */
static inline int iocp_status(const OVERLAPPED_ENTRY *entry) /* 0 or an error number */
{
    return (int)entry->Internal;
}
void iocp_submit(HANDLE port);                       /* what was started need not wait for the next dequeue */
uint64_t iocp_now(HANDLE port);                      /* monotonic, nanoseconds */
void iocp_wait_undisturbed(HANDLE port);             /* its waits take no signals: they are the main thread's */
long iocp_process_id(void);
void iocp_error_text(int error, char *text, size_t room); /* the system's words, UTF-8 */
const char *iocp_compiler(void);
void *iocp_take_pages(size_t size);                  /* zeroed, apart from any heap; NULL if there are none */
void iocp_give_pages(void *pages, size_t size);
void iocp_trim(HANDLE port);                         /* its owner: memory of sockets that are closed goes back */

/* ---- listening sockets that several processes have ----
 *
 * On Windows no port may own one. There an operation's event posts its packet, to `port` with `key`: the packet carries
 * no status, OVERLAPPED's Internal has it. The struct stays in its place from open to close, which waits until no packet
 * can be posted any more; `use` comes before each start, on an OVERLAPPED that is zeroed already.
 * Here each process associates the socket with a port of its own, and the events do nothing. A connection that another
 * process was quicker to accept ends no operation. The socket is made non-blocking before each accept, for all who share
 * it: accept4() has no flag that would make this one call so.
 */
typedef struct {
    char nothing;
} IOCP_EVENT;

int iocp_associate_shared(SOCKET s, HANDLE port, ULONG_PTR key); /* 0 or an error number */
int iocp_event_open(IOCP_EVENT *event, HANDLE port, ULONG_PTR key, OVERLAPPED *overlapped); /* the same */
void iocp_event_use(const IOCP_EVENT *event);
void iocp_event_close(IOCP_EVENT *event); /* of a zeroed one too, and again */

/* ---- locks and counters that several threads touch ---- */

typedef pthread_mutex_t SRWLOCK;
#define InitializeSRWLock(lock) pthread_mutex_init((lock), NULL)
#define AcquireSRWLockExclusive(lock) pthread_mutex_lock(lock)
#define ReleaseSRWLockExclusive(lock) pthread_mutex_unlock(lock)

#define InterlockedIncrement(p) (__atomic_add_fetch((p), 1, __ATOMIC_SEQ_CST))
#define InterlockedDecrement(p) (__atomic_sub_fetch((p), 1, __ATOMIC_SEQ_CST))
#define InterlockedExchangeAdd64(p, v) (__atomic_fetch_add((p), (v), __ATOMIC_SEQ_CST))
#define InterlockedExchange64(p, v) (__atomic_exchange_n((p), (v), __ATOMIC_SEQ_CST))
#define InterlockedExchange(p, v) (__atomic_exchange_n((p), (v), __ATOMIC_SEQ_CST))
#define InterlockedCompareExchange(p, v, expected) iocp_compare_exchange((p), (v), (expected))
static inline LONG iocp_compare_exchange(volatile LONG *p, LONG value, LONG expected)
{
    __atomic_compare_exchange_n(p, &expected, value, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    return expected;
}

/* Without a lock: whoever reads sees a whole number, and no order is promised. Writing is for counts of one writer. */
#define iocp_read32(p) (__atomic_load_n((p), __ATOMIC_RELAXED))
#define iocp_read64(p) (__atomic_load_n((p), __ATOMIC_RELAXED))
#define iocp_write64(p, v) (__atomic_store_n((p), (v), __ATOMIC_RELAXED))

#endif
