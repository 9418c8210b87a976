/* Sockets of a completion port on Linux: AcceptEx, ConnectEx, WSARecv, WSASend, CancelIoEx, closesocket.
 *
 * Ownership: an associated socket has a state, found by its descriptor. The state is reference-counted: one reference
 * while the socket is open, and one for each operation until its packet was dequeued. At 0 the port may reuse the
 * state; a trim gives its memory back.
 * A socket that was accepted or claimed, but is not yet associated, has a mark instead of a state. The mark, and later
 * the state, may own the peer's address as accept4() gave it, until iocp_peer_name() takes it or the socket is closed.
 * Threads: the port's owner. All ports share the table of descriptors, but each place in it belongs to the thread that
 * owns the descriptor: a thread that hands a socket over hands its place over too. Any thread may claim a socket.
 */
#define _GNU_SOURCE /* accept4 */
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "backend.h"

/* ---- descriptor -> state, in chunks that are made when needed and kept ---- */

enum { CHUNK = 1024, CHUNKS = 16384 }; /* 16 M descriptors */

static struct iocp_socket **chunks[CHUNKS];

static struct iocp_socket **place_of(SOCKET fd, int make)
{
    struct iocp_socket **chunk, **made;

    if (fd < 0 || fd / CHUNK >= CHUNKS)
        return NULL;
    chunk = __atomic_load_n(&chunks[fd / CHUNK], __ATOMIC_ACQUIRE);
    if (chunk == NULL) {
        if (!make || (made = calloc(CHUNK, sizeof *made)) == NULL)
            return NULL;
        if (__atomic_compare_exchange_n(&chunks[fd / CHUNK], &chunk, made, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
            chunk = made;
        else
            free(made); /* another thread was first: `chunk` is now that thread's */
    }
    return &chunk[fd % CHUNK];
}

/* A descriptor's number can pass between threads through the kernel alone (closed here, reused there), which the memory
 * model of C does not see: hence acquire and release. */
static struct iocp_socket *at(struct iocp_socket **place)
{
    return __atomic_load_n(place, __ATOMIC_ACQUIRE);
}

static void put(struct iocp_socket **place, struct iocp_socket *s)
{
    __atomic_store_n(place, s, __ATOMIC_RELEASE);
}

/* What a place has instead of a state: the socket is taken, and perhaps the peer's address. */
union mark {
    struct iocp_socket *in_place;
    uintptr_t number;
};
enum { TAKEN = 1 };

static struct iocp_socket *mark_with(struct sockaddr_in6 *peer)
{
    return (union mark){.number = (uintptr_t)peer | TAKEN}.in_place;
}

static int is_mark(struct iocp_socket *there)
{
    return ((union mark){.in_place = there}.number & TAKEN) != 0;
}

static struct sockaddr_in6 *peer_of_mark(struct iocp_socket *mark)
{
    return (struct sockaddr_in6 *)((union mark){.in_place = mark}.number & ~(uintptr_t)TAKEN); /* NULL: no address */
}

/* The sockets belong to the parent: the child closes its copies, and may then get the same numbers again. */
void sockets_disown(void)
{
    for (int i = 0; i < CHUNKS; i++) {
        for (int j = 0; chunks[i] != NULL && j < CHUNK; j++) {
            if (chunks[i][j] != NULL)
                close(i * CHUNK + j);
        }
        free(chunks[i]);
        chunks[i] = NULL;
    }
}

struct iocp_socket *socket_find(SOCKET fd)
{
    struct iocp_socket **place = place_of(fd, 0), *there = place != NULL ? at(place) : NULL;

    return is_mark(there) ? NULL : there;
}

int iocp_claim(SOCKET fd, HANDLE port, ULONG_PTR key)
{
    struct iocp_socket **place = place_of(fd, 1), *nobody = NULL;

    (void)port, (void)key; /* the port's owner associates it later */
    if (place == NULL)
        return fd < 0 ? EBADF : ENOMEM;
    if (!__atomic_compare_exchange_n(place, &nobody, mark_with(NULL), 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        return EINVAL;
    return 0;
}

void iocp_unclaim(SOCKET fd)
{
    struct iocp_socket **place = place_of(fd, 0);

    if (place != NULL && is_mark(at(place)))
        put(place, NULL);
}

/* ---- states: in slabs of pages from the system, which go back when no state of a slab is in use ---- */

struct socket_slab {
    struct socket_slab *next;  /* in port->roomy */
    struct iocp_socket *spare; /* states that were used before */
    uint32_t number;
    uint32_t used;
    uint32_t made; /* states used so far: the pages behind them are untouched */
    struct iocp_socket states[];
};

enum { SLAB = (SOCKET_SLAB_BYTES - sizeof(struct socket_slab)) / sizeof(struct iocp_socket) };

/* A state's place: the number of its slab, and its offset in the slab in bytes. */
enum { OFFSET_BITS = 16, SLABS = 1 << 16 };

static uint32_t place_in(const struct socket_slab *slab, const struct iocp_socket *s)
{
    return slab->number << OFFSET_BITS | (uint32_t)((const char *)s - (const char *)slab);
}

static struct socket_slab *slab_of(const struct iocp_socket *s)
{
    return s->port->slabs[s->place >> OFFSET_BITS];
}

struct iocp_socket *socket_named(struct iocp_port *port, uint32_t place, uint32_t generation)
{
    struct socket_slab *slab = port->slabs[place >> OFFSET_BITS];
    struct iocp_socket *s;

    if (slab == NULL)
        return NULL;
    s = (struct iocp_socket *)(void *)((char *)slab + (place & ((1 << OFFSET_BITS) - 1)));
    return s->generation == generation && s->fd != INVALID_SOCKET ? s : NULL;
}

static int slabs_grow(struct iocp_port *port)
{
    unsigned room = port->slab_room ? 2 * port->slab_room : 16;
    struct socket_slab **grown = realloc(port->slabs, room * sizeof *grown);

    if (grown == NULL)
        return 0;
    port->slabs = grown;
    port->slab_room = room;
    return 1;
}

/* Adds a slab, when no slab has room; 0 without memory. */
static int slab_add(struct iocp_port *port)
{
    struct socket_slab *slab;
    unsigned number = 0;

    while (number < port->slab_count && port->slabs[number] != NULL)
        number++;
    if (number == SLABS || (number == port->slab_room && !slabs_grow(port)))
        return 0;
    slab = iocp_take_pages(SOCKET_SLAB_BYTES);
    if (slab == NULL)
        return 0;
    slab->number = number;
    port->slabs[number] = slab;
    if (number == port->slab_count)
        port->slab_count++;
    port->roomy = slab;
    return 1;
}

static struct iocp_socket *socket_new(struct iocp_port *port)
{
    struct socket_slab *slab;
    struct iocp_socket *s;

    if (port->roomy == NULL && !slab_add(port))
        return NULL;
    slab = port->roomy;
    s = slab->spare;
    if (s != NULL)
        slab->spare = s->next;
    else
        s = &slab->states[slab->made++];
    if (++slab->used == SLAB)
        port->roomy = slab->next;
    *s = (struct iocp_socket){
        .port = port,
        .place = place_in(slab, s),
        .generation = ++port->associated,
        .references = 1,
    };
    return s;
}

void socket_dereference(struct iocp_socket *s)
{
    struct socket_slab *slab;

    if (--s->references > 0)
        return;
    slab = slab_of(s);
    s->next = slab->spare;
    slab->spare = s;
    if (slab->used-- == SLAB) {
        slab->next = s->port->roomy;
        s->port->roomy = slab;
    }
}

void sockets_trim(struct iocp_port *port)
{
    struct socket_slab **at = &port->roomy, *slab;

    while ((slab = *at) != NULL) {
        if (slab->used > 0) {
            at = &slab->next;
            continue;
        }
        *at = slab->next;
        port->slabs[slab->number] = NULL;
        iocp_give_pages(slab, SOCKET_SLAB_BYTES);
    }
}

static void socket_forget(struct iocp_socket *s)
{
    struct iocp_socket **place = place_of(s->fd, 0);

    if (place != NULL && at(place) == s) {
        put(place, NULL);
        free(s->peer);
    }
}

void sockets_free(struct iocp_port *port)
{
    for (unsigned number = 0; number < port->slab_count; number++) {
        struct socket_slab *slab = port->slabs[number];

        if (slab == NULL)
            continue;
        for (unsigned i = 0; i < slab->made; i++)
            socket_forget(&slab->states[i]);
        iocp_give_pages(slab, SOCKET_SLAB_BYTES);
    }
    free(port->slabs);
}

int socket_associate(SOCKET fd, struct iocp_port *port, ULONG_PTR key)
{
    struct iocp_socket **place = place_of(fd, 1), *there, *s;
    int error;

    port_assert_owner(port);
    if (place == NULL)
        return fd < 0 ? EBADF : ENOMEM;
    there = at(place);
    if (there != NULL && !is_mark(there))
        return EINVAL; /* as on Windows: a socket has one port for life */
    s = socket_new(port);
    if (s == NULL)
        return ENOMEM;
    s->key = key;
    s->fd = fd;
    s->peer = peer_of_mark(there);
    s->readable = 1;
    s->writable = 1;
    error = port->backend->associate(s);
    if (error != 0) {
        s->fd = INVALID_SOCKET;
        s->peer = NULL; /* the mark still owns it */
        socket_dereference(s);
        return error;
    }
    put(place, s);
    return 0;
}

int closesocket(SOCKET fd)
{
    struct iocp_socket **place = place_of(fd, 0), *s = place != NULL ? at(place) : NULL;

    if (is_mark(s)) {
        free(peer_of_mark(s));
        put(place, NULL);
    } else if (s != NULL) {
        port_assert_owner(s->port);
        if (s->pending > 0)
            s->port->backend->detach(s);
        put(place, NULL);
        s->fd = INVALID_SOCKET;
        free(s->peer);
        s->peer = NULL;
        socket_dereference(s);
    }
    return os_close(fd) == 0 ? 0 : SOCKET_ERROR;
}

/* ---- accepting ---- */

int socket_set_nonblocking(SOCKET fd)
{
    int on = 1;

    return ioctl(fd, FIONBIO, &on) == 0 ? 0 : errno;
}

/* Marks an accepted socket, and keeps its peer's address: after a reset getpeername() fails. Without memory it is
 * not kept. */
static void remember(SOCKET fd, const struct sockaddr_in6 *peer)
{
    struct iocp_socket **place = place_of(fd, 1);
    struct sockaddr_in6 *copy = place != NULL && peer != NULL ? malloc(sizeof *copy) : NULL;

    if (copy != NULL)
        *copy = *peer;
    if (place != NULL)
        put(place, mark_with(copy));
}

/* An accept that blocked would stop the whole worker. Another process that shares the listening socket may take the
 * connection that waits here, so the socket is made non-blocking before each accept. Another may make it blocking again
 * at that moment, as Python's socket.dup() does, so a poll must first have shown a connection. */
int socket_accept(struct iocp_socket *s, OVERLAPPED *overlapped)
{
    int error, fd, wanted = overlapped->first.iov_base != NULL;
    struct sockaddr_in6 peer = {0};
    socklen_t length = sizeof peer;

    if (!socket_is_ready(s->fd, overlapped))
        return EAGAIN;
    error = socket_set_nonblocking(s->fd);
    if (error != 0)
        return error;
    fd = accept4(s->fd, wanted ? (struct sockaddr *)&peer : NULL, wanted ? &length : NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return errno;
    remember(fd, wanted ? &peer : NULL);
    overlapped->accepted = fd;
    return 0;
}

/* Is it the error of one connection, so that the next in the queue may still succeed? Linux passes a pending error of
 * the new connection through accept(2): see "Error handling" there. */
static int is_of_one_connection(int error)
{
    switch (error) {
    case ECONNABORTED:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case ENETDOWN:
    case ENETUNREACH:
    case ENONET:
    case EPROTO:
        return 1;
    default:
        return 0;
    }
}

/* Another process may take the connection between the poll and the accept: the accept must not block. */
SOCKET iocp_accept_waiting(SOCKET listener)
{
    struct pollfd asked = {.fd = listener, .events = POLLIN};
    struct sockaddr_in6 peer = {0};
    socklen_t length = sizeof peer;
    int fd;

    socket_set_nonblocking(listener);
    do {
        if (os_poll(&asked, 1, 0) != 1) {
            errno = EAGAIN;
            return INVALID_SOCKET;
        }
        fd = os_accept(listener, (struct sockaddr *)&peer, &length);
    } while (fd < 0 && is_of_one_connection(errno));
    if (fd >= 0 && peer.sin6_family != 0)
        remember(fd, &peer);
    return fd;
}

/* ---- starting operations ---- */

static int copy_buffers(OVERLAPPED *overlapped, const WSABUF *from, DWORD count)
{
    struct iovec *to = &overlapped->first;

    if (count == 0 || count > 1024)
        return EMSGSIZE; /* IOV_MAX; Windows and wine have their own limits */
    if (count > 1) {
        struct gathered *copy = malloc(sizeof *copy + count * sizeof *to);

        if (copy == NULL)
            return ENOBUFS;
        to = copy->buffers;
        copy->message = (struct msghdr){.msg_iov = to, .msg_iovlen = count};
        overlapped->copy = copy;
    }
    for (DWORD i = 0; i < count; i++)
        to[i] = (struct iovec){.iov_base = from[i].buf, .iov_len = from[i].len};
    overlapped->buffers = (uint16_t)count;
    return 0;
}

/* 0: done, and `bytes` is how many; WSA_IO_PENDING: a packet will come; else the error of a failed start. */
static int start(SOCKET fd, OVERLAPPED *overlapped, int kind, DWORD *bytes)
{
    struct iocp_socket *s = socket_find(fd);
    int error;

    if (s == NULL) {
        error = ENOTSOCK; /* no socket, or not associated */
        goto failed;
    }
    port_assert_owner(s->port);
    overlapped->kind = (uint8_t)kind;
    overlapped->socket = s;
    overlapped->Internal = STATUS_PENDING;
    s->references++;
    error = s->port->backend->start(s, overlapped);
    if (error == EINPROGRESS)
        return error;
    if (error == 0) {
        if (bytes != NULL)
            *bytes = (DWORD)overlapped->InternalHigh;
        if (!s->skip) {
            port_complete(overlapped, 0, overlapped->InternalHigh);
            return 0;
        }
    }
    socket_dereference(s);
failed:
    drop_copy(overlapped);
    overlapped->Internal = (ULONG_PTR)error;
    return error;
}

BOOL AcceptEx(SOCKET listener, SOCKET placeholder, void *buffer, DWORD receive_length, DWORD local_length,
              DWORD remote_length, DWORD *received, OVERLAPPED *overlapped)
{
    (void)local_length, (void)remote_length;
    overlapped->first.iov_base = buffer; /* nothing is written there */
    errno = placeholder != INVALID_SOCKET || receive_length != 0
                ? EOPNOTSUPP
                : start(listener, overlapped, OVERLAPPED_ACCEPT, received);
    return errno == 0;
}

BOOL ConnectEx(SOCKET fd, const struct sockaddr *name, int name_length, void *send_buffer, DWORD send_length,
               DWORD *sent, OVERLAPPED *overlapped)
{
    if (send_buffer != NULL || send_length != 0) {
        errno = EOPNOTSUPP;
        return FALSE;
    }
    overlapped->copy = malloc((size_t)name_length);
    if (overlapped->copy == NULL) {
        errno = ENOBUFS;
        return FALSE;
    }
    memcpy(overlapped->copy, name, (size_t)name_length);
    overlapped->buffers = (uint16_t)name_length;
    errno = start(fd, overlapped, OVERLAPPED_CONNECT, sent);
    return errno == 0;
}

int WSARecv(SOCKET fd, WSABUF *buffers, DWORD count, DWORD *received, DWORD *flags, OVERLAPPED *overlapped, void *routine)
{
    int error = *flags != 0 || routine != NULL ? EOPNOTSUPP : copy_buffers(overlapped, buffers, count);

    if (error == 0)
        error = start(fd, overlapped, OVERLAPPED_RECEIVE, received);
    errno = error;
    return error == 0 ? 0 : SOCKET_ERROR;
}

int WSASend(SOCKET fd, WSABUF *buffers, DWORD count, DWORD *sent, DWORD flags, OVERLAPPED *overlapped, void *routine)
{
    int error = flags != 0 || routine != NULL ? EOPNOTSUPP : copy_buffers(overlapped, buffers, count);

    if (error == 0)
        error = start(fd, overlapped, OVERLAPPED_SEND, sent);
    errno = error;
    return error == 0 ? 0 : SOCKET_ERROR;
}

BOOL CancelIoEx(HANDLE file, OVERLAPPED *overlapped)
{
    struct iocp_socket *s = socket_find((SOCKET)(intptr_t)file);

    if (s == NULL) {
        errno = EBADF;
        return FALSE;
    }
    port_assert_owner(s->port);
    if (s->pending == 0 ||
        (overlapped != NULL && (overlapped->Internal != STATUS_PENDING || overlapped->socket != s))) {
        errno = ERROR_NOT_FOUND;
        return FALSE;
    }
    s->port->backend->cancel(s, overlapped);
    return TRUE;
}

BOOL SetFileCompletionNotificationModes(HANDLE file, unsigned char flags)
{
    struct iocp_socket *s = socket_find((SOCKET)(intptr_t)file);

    if (s == NULL || flags != FILE_SKIP_COMPLETION_PORT_ON_SUCCESS) {
        errno = s == NULL ? EBADF : EOPNOTSUPP;
        return FALSE;
    }
    s->skip = 1;
    return TRUE;
}

/* ---- where the systems differ ---- */

SOCKET iocp_socket(HANDLE port, int family)
{
    (void)port; /* only the simulated kernel needs it */
    return os_socket(family, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
}

int iocp_accept_placeholder(int family, SOCKET *placeholder)
{
    (void)family;
    *placeholder = INVALID_SOCKET;
    return 0;
}

int iocp_associate_claimed(SOCKET s, HANDLE port, ULONG_PTR key)
{
    return CreateIoCompletionPort((HANDLE)(intptr_t)s, port, key, 0) == NULL ? errno : 0;
}

int iocp_associate_shared(SOCKET s, HANDLE port, ULONG_PTR key)
{
    return iocp_associate_claimed(s, port, key);
}

int iocp_event_open(IOCP_EVENT *event, HANDLE port, ULONG_PTR key, OVERLAPPED *overlapped)
{
    (void)event, (void)port, (void)key, (void)overlapped;
    return 0;
}

void iocp_event_use(const IOCP_EVENT *event)
{
    (void)event;
}

void iocp_event_close(IOCP_EVENT *event)
{
    (void)event;
}

SOCKET iocp_accepted(SOCKET placeholder, const OVERLAPPED *overlapped)
{
    (void)placeholder;
    return overlapped->accepted;
}

int iocp_update_accepted(SOCKET s, SOCKET listener)
{
    (void)listener;
    return os_update(s);
}

int iocp_update_connected(SOCKET s)
{
    return os_update(s);
}

int iocp_bind_for_connect(SOCKET s, int family)
{
    (void)s, (void)family;
    return 0;
}

int iocp_skip_on_success(SOCKET s)
{
    return SetFileCompletionNotificationModes((HANDLE)(intptr_t)s, FILE_SKIP_COMPLETION_PORT_ON_SUCCESS);
}

int iocp_lingers(SOCKET s)
{
    struct linger linger = {0};
    socklen_t length = sizeof linger;

    return os_getsockopt(s, SOL_SOCKET, SO_LINGER, &linger, &length) == 0 && linger.l_onoff;
}

void iocp_linger_off(SOCKET s)
{
    const struct linger off = {.l_onoff = 0};

    os_setsockopt(s, SOL_SOCKET, SO_LINGER, &off, sizeof off);
}

void iocp_linger_zero(SOCKET s)
{
    const struct linger zero = {.l_onoff = 1, .l_linger = 0};

    os_setsockopt(s, SOL_SOCKET, SO_LINGER, &zero, sizeof zero);
}

static int set_number(SOCKET s, int level, int name, int value)
{
    return os_setsockopt(s, level, name, &value, sizeof value) == 0 ? 0 : errno;
}

void iocp_break_off(SOCKET s)
{
    const struct sockaddr nobody = {.sa_family = AF_UNSPEC};
    int broken = os_connect(s, &nobody, sizeof nobody);

    (void)broken; /* it fails if the connection is gone already: nothing to do */
}

void iocp_stop_listening(SOCKET s)
{
    int stopped = os_shutdown(s, SHUT_RD);

    (void)stopped; /* it fails if another process was quicker: nothing to do */
}

int iocp_no_delay(SOCKET s)
{
    return set_number(s, IPPROTO_TCP, TCP_NODELAY, 1);
}

int iocp_keep_alive(SOCKET s, unsigned idle, unsigned interval, unsigned probes)
{
    int error = set_number(s, SOL_SOCKET, SO_KEEPALIVE, 1);

    if (error == 0)
        error = set_number(s, IPPROTO_TCP, TCP_KEEPIDLE, (int)idle);
    if (error == 0)
        error = set_number(s, IPPROTO_TCP, TCP_KEEPINTVL, (int)interval);
    if (error == 0)
        error = set_number(s, IPPROTO_TCP, TCP_KEEPCNT, (int)probes);
    return error;
}

/* linux/tcp.h cannot be included beside netinet/tcp.h. In its struct tcp_info tcpi_bytes_acked is at byte 120. */
uint64_t iocp_taken(SOCKET s)
{
    uint64_t info[16];
    socklen_t length = sizeof info;

    return os_getsockopt(s, IPPROTO_TCP, TCP_INFO, info, &length) == 0 && length == sizeof info ? info[15] : 0;
}

int socket_is_ready(SOCKET fd, const OVERLAPPED *overlapped)
{
    struct pollfd looked = {.fd = fd, .events = overlapped->kind == OVERLAPPED_CONNECT ? POLLOUT : POLLIN};

    return overlapped->kind != OVERLAPPED_SEND && poll(&looked, 1, 0) > 0;
}

int iocp_has_ended(SOCKET fd, OVERLAPPED *overlapped)
{
    struct iocp_socket *s = socket_find(fd);

    if (s != NULL && overlapped->Internal == STATUS_PENDING && s->port->backend->collect != NULL)
        s->port->backend->collect(s->port);
    return overlapped->Internal != STATUS_PENDING;
}

int iocp_has_come(SOCKET fd, OVERLAPPED *overlapped)
{
    struct iocp_socket *s = socket_find(fd);

    if (s == NULL || overlapped->Internal != STATUS_PENDING)
        return overlapped->Internal != STATUS_PENDING;
    return s->port->backend->has_come(s, overlapped);
}

void iocp_own_name(SOCKET s, SOCKADDR_STORAGE *name)
{
    socklen_t length = sizeof *name;

    if (os_getsockname(s, (struct sockaddr *)name, &length) != 0)
        name->ss_family = 0;
}

void iocp_peer_name(SOCKET fd, SOCKADDR_STORAGE *name)
{
    struct iocp_socket *s = socket_find(fd);
    socklen_t length = sizeof *name;

    if (s != NULL && s->peer != NULL) {
        memcpy(name, s->peer, sizeof *s->peer);
        free(s->peer);
        s->peer = NULL;
    } else if (os_getpeername(fd, (struct sockaddr *)name, &length) != 0) {
        name->ss_family = 0;
    }
}

/* After a reset getpeername() fails as if the socket had never been connected. But then its input has ended, and that
 * of a socket that was never connected has not. */
int iocp_was_connected(SOCKET s)
{
    struct pollfd look = {.fd = s, .events = POLLRDHUP};

    return poll(&look, 1, 0) == 1 && (look.revents & POLLRDHUP) != 0;
}

int iocp_shutdown_send(SOCKET s)
{
    return os_shutdown(s, SHUT_WR) == 0 ? 0 : errno;
}
