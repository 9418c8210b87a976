/* The I/O completion port calls on Linux: the subset that the core uses, with the meaning that Win32 documents.
 *
 * The contract, with every difference from Windows:
 *  1. One thread owns a port: the first that associates a socket with it or dequeues from it. Only the owner may
 *     associate, start, cancel, dequeue, or close an associated socket; any other thread that does so gets a message on
 *     stderr and abort(). PostQueuedCompletionStatus may be called from any thread.
 *  2. On io_uring WSARecv, WSASend, AcceptEx and ConnectEx only queue a request. The next dequeue submits all of them
 *     and waits, in one system call; iocp_submit() submits without a dequeue. Two kinds of calls are tried at once
 *     instead: a WSASend of more than 16 KiB, and a WSARecv of more than 16 KiB if data is known to be there.
 *  3. A start succeeds inline (TRUE or 0), pends (WSA_IO_PENDING), or fails (any other error: no packet will come).
 *     As on Windows an inline success posts a packet too, unless FILE_SKIP_COMPLETION_PORT_ON_SUCCESS was set.
 *  4. SOCKET is the file descriptor. The kernel reuses the number of a closed descriptor at once. Therefore the state
 *     of a closed socket lives until its last packet was dequeued, and no event of it reaches the number's next owner.
 *  5. OVERLAPPED and data buffers belong to the port from before the start until their packet was dequeued. The WSABUF
 *     array and the address of ConnectEx are copied by the call.
 *  6. Every operation that was started ends exactly once: by a packet, an inline success or a failed start.
 *     closesocket() cancels pending operations; their packets still come, with ERROR_OPERATION_ABORTED.
 *  7. Error numbers are errnos: Internal holds STATUS_PENDING, 0 or an errno, and the Windows error names that the core
 *     compares are defined as errnos below.
 *  8. Call CloseHandle(port) only when no operation is in flight on the port and no thread waits in a dequeue.
 *  9. AcceptEx makes the accepted socket itself: pass INVALID_SOCKET, and ask iocp_accepted() for the descriptor. The
 *     receive length must be 0. Nothing is written to the buffer: iocp_peer_name() gives the peer's address.
 * 10. Keep at most one send in flight on a socket: io_uring may mix the bytes of two sends. Windows and epoll send in
 *     the order of the calls.
 * 11. A dequeue that a signal interrupts goes on waiting until its timeout is over.
 * 12. A forked child has none of its parent's ports and associated sockets: fork() itself closes the child's copies.
 *
 * Undefined: starting with an OVERLAPPED that is not zeroed; two threads in one port; closing an associated descriptor
 * with close(2).
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
#define WAIT_TIMEOUT 258 /* not an errno, so no system call sets it */

/* Both read errno. */
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
    /* the rest is private to the port */
    struct _OVERLAPPED *next;
    struct iocp_socket *socket;
    void *copy;         /* made by the call: of several WSABUFs, or of ConnectEx's address */
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

/* INVALID_HANDLE_VALUE makes a new port on the default backend; else the socket `file` is associated with `port`. */
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

#define IOCP_BACKENDS 3 /* the most that a build can have; iocp_backend_name() is NULL past the last */

int iocp_startup(void);                        /* 0 or an error number; idempotent */
const char *iocp_backend_name(int index);      /* "epoll", "uring", ...; NULL past the last */
const char *iocp_backend_missing(int index);   /* NULL if it can run here, else the reason as text */
int iocp_backend_find(const char *name);       /* its index; "auto": the best that can run; -1: unknown */
const char *iocp_backend_absent(const char *name); /* why this build lacks what another build has; else NULL */
HANDLE iocp_open_port(int backend);            /* NULL and errno on failure */

/* Any thread: reserves a socket for `port`; NULL: for a shared listener. 0, or an error number, for example because the
 * socket is associated or claimed already. Unclaiming undoes that if the socket was not associated; on Windows claiming
 * already associates it, for good. The port's owner associates a claimed socket: 0 or an error number. */
int iocp_claim(SOCKET s, HANDLE port, ULONG_PTR key);
void iocp_unclaim(SOCKET s);
int iocp_associate_claimed(SOCKET s, HANDLE port, ULONG_PTR key);

SOCKET iocp_socket(HANDLE port, int family);   /* a TCP socket: overlapped, not inheritable */
int iocp_accept_placeholder(int family, SOCKET *placeholder); /* AcceptEx's second argument; 0 or an error number */
SOCKET iocp_accept_waiting(SOCKET listener);   /* accepts without waiting; INVALID_SOCKET: no connection, or an error */
SOCKET iocp_accepted(SOCKET placeholder, const OVERLAPPED *overlapped);
int iocp_update_accepted(SOCKET s, SOCKET listener); /* SO_UPDATE_ACCEPT_CONTEXT; 0 or an error number */
int iocp_update_connected(SOCKET s);                 /* SO_UPDATE_CONNECT_CONTEXT */
int iocp_bind_for_connect(SOCKET s, int family);     /* to any address: on Windows ConnectEx needs a bound socket */
int iocp_skip_on_success(SOCKET s);                  /* 1: from now on inline successes post no packet */
int iocp_lingers(SOCKET s);                          /* is SO_LINGER on, so that closing waits or resets? */
void iocp_linger_off(SOCKET s);
void iocp_linger_zero(SOCKET s);                     /* closing it resets the connection */
int iocp_no_delay(SOCKET s);                         /* 0 or an error number */
#define IOCP_INHERITS_NO_DELAY 1                     /* an accepted socket inherits TCP_NODELAY from the listener */
/* The option with which bind() to port 0 leaves the choice of a port to connect(): IP_BIND_ADDRESS_NO_PORT, which old
 * headers lack. */
#define IOCP_LATE_PORT_LEVEL 0
#define IOCP_LATE_PORT 24
/* With more buffers in use a session posts a zero-byte receive first. That costs little here. */
#define IOCP_BUFFERS_ENOUGH 64
#define IOCP_CANCEL_SPARES 1                         /* a connection survives the cancelling of its receive */
int iocp_keep_alive(SOCKET s, unsigned idle, unsigned interval, unsigned probes); /* two in seconds, and a count */
void iocp_own_name(SOCKET s, SOCKADDR_STORAGE *name); /* sets ss_family to 0 if the name is unknown */
void iocp_peer_name(SOCKET s, SOCKADDR_STORAGE *name); /* so too; an accepted peer's outlives a reset, for one call */
int iocp_was_connected(SOCKET s);                    /* for one without a peer's name: was there one that reset? */
#define iocp_accept_buffer(buffer, wanted) ((wanted) ? (buffer) : NULL) /* for AcceptEx; wanted: the peer's address */
int iocp_shutdown_send(SOCKET s);                    /* 0 or an error number */
void iocp_stop_listening(SOCKET s);                  /* also for other processes that hold the socket */
void iocp_break_off(SOCKET s);                       /* resets the connection now, whatever process holds the socket */
uint64_t iocp_taken(SOCKET s);                       /* bytes sent that the peer's system acknowledged; 0: unknown */
int iocp_has_come(SOCKET s, OVERLAPPED *overlapped);   /* the operation has ended or can end now, packet or not */
int iocp_has_ended(SOCKET s, OVERLAPPED *overlapped);  /* it has ended: its packet is queued, or none comes */
int iocp_has_forked(void);                           /* 1: a child may hold our descriptors, so close() is not enough */
static inline int iocp_status(const OVERLAPPED_ENTRY *entry) /* 0 or an error number */
{
    return (int)entry->Internal;
}
void iocp_submit(HANDLE port);                       /* submits started operations without waiting for a dequeue */
uint64_t iocp_now(HANDLE port);                      /* monotonic, nanoseconds */
void iocp_wait_undisturbed(HANDLE port);             /* its dequeues block signals, so the main thread gets them */
long iocp_process_id(void);
void iocp_error_text(int error, char *text, size_t room); /* the system's text, UTF-8 */
const char *iocp_compiler(void);
void *iocp_take_pages(size_t size);                  /* zeroed, not from the heap; NULL without memory */
void iocp_give_pages(void *pages, size_t size);
void iocp_trim(HANDLE port);                         /* owner only: gives closed sockets' memory back */

/* ---- listening sockets shared by several processes ----
 *
 * On Windows such a socket is associated with no port. Instead each operation has an event, and when it is set a packet
 * with `key` is posted to `port`. That packet carries no status: read it from the OVERLAPPED's Internal. Zero the
 * OVERLAPPED and then call iocp_event_use(), before each start. The IOCP_EVENT must not move while it is open;
 * iocp_event_close() returns when no packet can be posted any more.
 * On Linux each process associates the socket with a port of its own, and the event functions do nothing. An accept
 * stays pending when another process takes the connection first. Each accept first makes the socket non-blocking, for
 * all processes that share it, because accept4() has no flag that makes only this call non-blocking.
 */
typedef struct {
    char nothing;
} IOCP_EVENT;

int iocp_associate_shared(SOCKET s, HANDLE port, ULONG_PTR key); /* 0 or an error number */
int iocp_event_open(IOCP_EVENT *event, HANDLE port, ULONG_PTR key, OVERLAPPED *overlapped); /* 0 or an error number */
void iocp_event_use(const IOCP_EVENT *event);
void iocp_event_close(IOCP_EVENT *event); /* does nothing to a zeroed or closed one */

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

/* Atomic but unordered. Use iocp_write64() only for a counter that one thread writes. */
#define iocp_read32(p) (__atomic_load_n((p), __ATOMIC_RELAXED))
#define iocp_read64(p) (__atomic_load_n((p), __ATOMIC_RELAXED))
#define iocp_write64(p, v) (__atomic_store_n((p), (v), __ATOMIC_RELAXED))

#endif
