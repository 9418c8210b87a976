/* The completion port on Linux: its owner, its queue of finished operations, posted packets and the dequeue.
 *
 * Ownership: the port owns `done` (finished operations whose packets are not yet dequeued) and `posted`. Dequeuing a
 * packet gives the OVERLAPPED back to the caller and drops its reference to the socket's state.
 * Threads: the owner alone, except for PostQueuedCompletionStatus.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "backend.h"

/* The best first: "auto" takes the first that can run. */
static const struct iocp_backend *const backends[] = {
#ifdef FIRST_BACKEND /* a test's */
    FIRST_BACKEND,
#endif
#ifdef IOCPCORE_URING
    &uring_backend,
#endif
    &epoll_backend,
};
enum { BACKENDS = sizeof backends / sizeof *backends };

/* Its address identifies the thread cheaply. With the default TLS model taking the address would be a function call. */
static __thread char this_thread __attribute__((tls_model("initial-exec")));

/* ---- forks ----
 *
 * The descriptors that a child inherits would keep the parent's sockets open after the parent has ended. Even a ring
 * alone would, because an io_uring holds the sockets of its pending operations. So a pthread_atfork() handler closes
 * the child's copies. At that moment the child may call close(2) and little else.
 */

static pthread_mutex_t open_lock = PTHREAD_MUTEX_INITIALIZER; /* guards open_ports */
static struct iocp_port *open_ports;
static int forked; /* atomic: this process has forked or is about to */

static void before_fork(void)
{
    __atomic_store_n(&forked, 1, __ATOMIC_RELAXED);
    pthread_mutex_lock(&open_lock);
}

static void go_on_in_parent(void)
{
    pthread_mutex_unlock(&open_lock);
}

static void begin_child(void)
{
    for (struct iocp_port *port = open_ports; port != NULL; port = port->next_open)
        port->backend->disown(port);
    open_ports = NULL;
    sockets_disown();
    __atomic_store_n(&forked, 0, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&open_lock);
}

static void survive_fork(void)
{
    pthread_atfork(before_fork, go_on_in_parent, begin_child);
}

static void note_open(struct iocp_port *port)
{
    pthread_mutex_lock(&open_lock);
    port->next_open = open_ports;
    open_ports = port;
    pthread_mutex_unlock(&open_lock);
}

static void forget_open(struct iocp_port *port)
{
    struct iocp_port **at = &open_ports;

    pthread_mutex_lock(&open_lock);
    while (*at != NULL && *at != port)
        at = &(*at)->next_open;
    if (*at != NULL)
        *at = port->next_open;
    pthread_mutex_unlock(&open_lock);
}

int iocp_has_forked(void)
{
    return __atomic_load_n(&forked, __ATOMIC_RELAXED);
}

int iocp_startup(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    return pthread_once(&once, survive_fork);
}

const char *iocp_backend_name(int index)
{
    return index >= 0 && index < BACKENDS ? backends[index]->name : NULL;
}

const char *iocp_backend_missing(int index)
{
    return backends[index]->missing();
}

int iocp_backend_find(const char *name)
{
    for (int i = 0; i < BACKENDS; i++) {
        if (strcmp(name, "auto") == 0 ? backends[i]->missing() == NULL : strcmp(name, backends[i]->name) == 0)
            return i;
    }
    return -1;
}

const char *iocp_backend_absent(const char *name)
{
#ifndef IOCPCORE_URING
    if (strcmp(name, "uring") == 0)
        return "this build was made without liburing: install liburing-dev and pkg-config (Fedora: liburing-devel), "
               "version 2.3 or newer, and build iocpcore again";
#endif
    return strcmp(name, "iocp") == 0 ? "it is for Windows" : NULL;
}

static int posted_grow(struct iocp_port *port);

HANDLE iocp_open_port(int backend)
{
    struct iocp_port *port = calloc(1, sizeof *port);
    int error;

    if (port == NULL)
        goto err1;
    port->backend = backends[backend];
    pthread_mutex_init(&port->lock, NULL);
    error = posted_grow(port) ? 0 : ENOMEM; /* now, so that posting the packet that wakes a worker needs no memory */
    if (error != 0)
        goto err2;
    error = port->backend->open(port);
    if (error != 0)
        goto err3;
    note_open(port);
    return port;

err3:
    free(port->posted);
err2:
    pthread_mutex_destroy(&port->lock);
    free(port);
    errno = error;
err1:
    return NULL;
}

HANDLE CreateIoCompletionPort(HANDLE file, HANDLE port, ULONG_PTR key, DWORD threads)
{
    (void)threads; /* one thread owns a port here */
    if (file == INVALID_HANDLE_VALUE)
        return iocp_open_port(iocp_backend_find("auto"));
    errno = socket_associate((SOCKET)(intptr_t)file, port, key);
    return errno == 0 ? port : NULL;
}

BOOL CloseHandle(HANDLE handle)
{
    struct iocp_port *port = handle;

    forget_open(port);
    port->backend->close(port);
    sockets_free(port);
    pthread_mutex_destroy(&port->lock);
    free(port->posted);
    free(port);
    return TRUE;
}

void port_assert_owner(struct iocp_port *port)
{
    if (port->owner == &this_thread)
        return;
    if (port->owner == NULL) {
        int error = port->backend->own(port);

        if (error == 0) {
            port->owner = &this_thread;
            return;
        }
        fprintf(stderr, "iocpcore: a thread cannot own its port: %s\n", strerror(error));
    } else {
        fprintf(stderr, "iocpcore: a completion port is used by a thread that does not own it\n");
    }
    abort();
}

void port_complete(OVERLAPPED *overlapped, int status, size_t bytes)
{
    drop_copy(overlapped);
    overlapped->Internal = (ULONG_PTR)status;
    overlapped->InternalHigh = bytes;
    overlapped_enqueue(&overlapped->socket->port->done, overlapped);
}

/* ---- posted packets ---- */

static int posted_grow(struct iocp_port *port)
{
    size_t room = port->posted_room ? 2 * port->posted_room : 16;
    struct posted_packet *grown = malloc(room * sizeof *grown);

    if (grown == NULL)
        return 0;
    for (size_t i = 0; i < port->posted_count; i++)
        grown[i] = port->posted[(port->posted_first + i) % port->posted_room];
    free(port->posted);
    port->posted = grown;
    port->posted_first = 0;
    port->posted_room = room;
    return 1;
}

BOOL PostQueuedCompletionStatus(HANDLE handle, DWORD bytes, ULONG_PTR key, OVERLAPPED *overlapped)
{
    struct iocp_port *port = handle;
    int posted;

    pthread_mutex_lock(&port->lock);
    posted = port->posted_count < port->posted_room || posted_grow(port);
    if (posted) {
        struct posted_packet *p = &port->posted[(port->posted_first + port->posted_count++) % port->posted_room];

        *p = (struct posted_packet){.key = key, .overlapped = overlapped, .bytes = bytes};
        __atomic_store_n(&port->posted_waiting, 1, __ATOMIC_SEQ_CST);
    }
    pthread_mutex_unlock(&port->lock);
    if (!posted) {
        errno = ENOMEM;
        return FALSE;
    }
    /* The owner sets `sleeping`, then reads `posted_waiting`. This thread sets `posted_waiting`, then reads `sleeping`.
     * So at least one of the two sees the other's. */
    if (__atomic_exchange_n(&port->sleeping, 0, __ATOMIC_SEQ_CST))
        port->backend->wake(port);
    return TRUE;
}

/* ---- the dequeue ---- */

static ULONG take_posted(struct iocp_port *port, OVERLAPPED_ENTRY *entries, ULONG count)
{
    ULONG taken = 0;

    if (!__atomic_load_n(&port->posted_waiting, __ATOMIC_SEQ_CST))
        return 0;
    pthread_mutex_lock(&port->lock);
    while (taken < count && port->posted_count > 0) {
        struct posted_packet *p = &port->posted[port->posted_first];

        entries[taken++] = (OVERLAPPED_ENTRY){.lpCompletionKey = p->key,
                                              .lpOverlapped = p->overlapped,
                                              .dwNumberOfBytesTransferred = p->bytes};
        port->posted_first = (port->posted_first + 1) % port->posted_room;
        port->posted_count--;
    }
    __atomic_store_n(&port->posted_waiting, port->posted_count > 0, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&port->lock);
    return taken;
}

static ULONG take_done(struct iocp_port *port, OVERLAPPED_ENTRY *entries, ULONG count)
{
    ULONG taken = 0;
    OVERLAPPED *overlapped;

    while (taken < count && (overlapped = overlapped_dequeue(&port->done)) != NULL) {
        struct iocp_socket *s = overlapped->socket;

        entries[taken++] = (OVERLAPPED_ENTRY){.lpCompletionKey = s->key,
                                              .lpOverlapped = overlapped,
                                              .Internal = overlapped->Internal,
                                              .dwNumberOfBytesTransferred = (DWORD)overlapped->InternalHigh};
        socket_dereference(s);
    }
    return taken;
}

/* Posted packets and finished operations come first by turns: neither starves the other, however small the batch. */
static ULONG take_packets(struct iocp_port *port, OVERLAPPED_ENTRY *entries, ULONG count)
{
    ULONG taken;

    port->done_first = !port->done_first;
    if (port->done_first) {
        taken = take_done(port, entries, count);
        return taken + take_posted(port, entries + taken, count - taken);
    }
    taken = take_posted(port, entries, count);
    return taken + take_done(port, entries + taken, count - taken);
}

static int wait_for_packets(struct iocp_port *port, int64_t nanoseconds)
{
    int error;

    if (port->done.head != NULL)
        nanoseconds = 0;
    if (nanoseconds != 0) {
        __atomic_store_n(&port->sleeping, 1, __ATOMIC_SEQ_CST);
        if (__atomic_load_n(&port->posted_waiting, __ATOMIC_SEQ_CST))
            nanoseconds = 0;
    }
    error = port->backend->wait(port, nanoseconds);
    __atomic_store_n(&port->sleeping, 0, __ATOMIC_SEQ_CST);
    return error;
}

BOOL GetQueuedCompletionStatusEx(HANDLE handle, OVERLAPPED_ENTRY *entries, ULONG count, ULONG *removed,
                                 DWORD milliseconds, BOOL alertable)
{
    struct iocp_port *port = handle;
    int64_t left = milliseconds == INFINITE ? -1 : (int64_t)milliseconds * 1000000;
    uint64_t deadline = 0;
    int error;

    port_assert_owner(port);
    *removed = 0;
    if (alertable || count == 0) {
        errno = alertable ? EOPNOTSUPP : EINVAL;
        return FALSE;
    }
    if (left > 0)
        deadline = iocp_now(port) + (uint64_t)left;
    for (;;) {
        error = wait_for_packets(port, left);
        *removed = take_packets(port, entries, count);
        if (*removed > 0)
            return TRUE;
        if (error != 0) {
            errno = error;
            return FALSE;
        }
        /* No packet: a signal, a wake-up whose packet was taken already, or the timeout. The clock tells which. */
        if (left > 0) {
            uint64_t now = iocp_now(port);

            left = now < deadline ? (int64_t)(deadline - now) : 0;
        }
        if (left == 0) {
            errno = WAIT_TIMEOUT;
            return FALSE;
        }
    }
}

void iocp_submit(HANDLE handle)
{
    struct iocp_port *port = handle;

    port->backend->submit(port);
}

uint64_t iocp_now(HANDLE handle)
{
    struct iocp_port *port = handle;

    return port->backend->now(port);
}

/* Blocks all signals but those of faults: even one sent by another process should reach faulthandler or a sanitizer. */
void iocp_wait_undisturbed(HANDLE handle)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT};
    struct iocp_port *port = handle;

    sigfillset(&port->blocked);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        sigdelset(&port->blocked, faults[i]);
    port->undisturbed = 1;
}

const sigset_t *port_signals(const struct iocp_port *port)
{
    return port->undisturbed ? &port->blocked : NULL;
}

void *iocp_take_pages(size_t size)
{
    void *pages = os_mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return pages == MAP_FAILED ? NULL : pages;
}

void iocp_give_pages(void *pages, size_t size)
{
    os_munmap(pages, size);
}

void iocp_trim(HANDLE handle)
{
    struct iocp_port *port = handle;

    port_assert_owner(port);
    sockets_trim(port);
}

long iocp_process_id(void)
{
    return getpid();
}

void iocp_error_text(int error, char *text, size_t room)
{
    snprintf(text, room, "%s", strerror(error));
}

const char *iocp_compiler(void)
{
    return "GCC " __VERSION__;
}
