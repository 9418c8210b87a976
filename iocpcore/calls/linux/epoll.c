/* The epoll backend, the reference: it tries an operation at once, and again when an edge says that it may succeed.
 *
 * Ownership: pending operations wait in their socket's two queues, in the order of their start. epoll is given the
 * place and generation of a socket's state, never its address: while a forked child keeps a socket open, its events go
 * on coming after our close, when the state may be another socket's or its memory given back.
 * Threads: the port's owner. wake() writes to an eventfd that is never read: each write makes an edge, which is enough.
 */
#define _GNU_SOURCE /* syscall */
#include <limits.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "backend.h"

enum { EVENTS = 256 };

struct epoll_port {
    int epoll;
    int wakeup;
    struct epoll_event events[EVENTS];
};

static const uint64_t WAKEUP = UINT64_MAX;

static const char *epoll_missing(void)
{
    return NULL;
}

static int epoll_open(struct iocp_port *port)
{
    struct epoll_port *ep = calloc(1, sizeof *ep);
    struct epoll_event edge = {.events = EPOLLIN | EPOLLET, .data.u64 = WAKEUP};
    int error = ENOMEM;

    if (ep == NULL)
        goto err1;
    ep->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (ep->epoll < 0) {
        error = errno;
        goto err2;
    }
    ep->wakeup = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (ep->wakeup < 0) {
        error = errno;
        goto err3;
    }
    if (epoll_ctl(ep->epoll, EPOLL_CTL_ADD, ep->wakeup, &edge) != 0) {
        error = errno;
        goto err4;
    }
    port->backend_data = ep;
    return 0;

err4:
    close(ep->wakeup);
err3:
    close(ep->epoll);
err2:
    free(ep);
err1:
    return error;
}

static void epoll_close(struct iocp_port *port)
{
    struct epoll_port *ep = port->backend_data;

    close(ep->wakeup);
    close(ep->epoll);
    free(ep);
}

static void epoll_disown(struct iocp_port *port)
{
    struct epoll_port *ep = port->backend_data;

    close(ep->wakeup);
    close(ep->epoll);
}

static int epoll_own(struct iocp_port *port)
{
    (void)port;
    return 0;
}

static int epoll_associate(struct iocp_socket *s)
{
    (void)s; /* registered at its first operation: a socket that is not yet connected would report a hang-up */
    return 0;
}

static uint64_t name_of(const struct iocp_socket *s)
{
    return (uint64_t)s->generation << 32 | s->place; /* never WAKEUP: no state is at offset 65535 of a slab */
}

/* EEXIST: this socket was closed under the same number before, another descriptor has kept it open since, and so the
 * set still has its entry. */
static int epoll_register(struct iocp_socket *s)
{
    struct epoll_port *ep = s->port->backend_data;
    struct epoll_event edges = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET, .data.u64 = name_of(s)};

    if (s->registered)
        return 0;
    if (epoll_ctl(ep->epoll, EPOLL_CTL_ADD, s->fd, &edges) != 0 &&
        (errno != EEXIST || epoll_ctl(ep->epoll, EPOLL_CTL_MOD, s->fd, &edges) != 0))
        return errno;
    s->registered = 1;
    return 0;
}

/* The C library makes receiving and sending cancellation points, which in a process with threads cost two locked
 * instructions a call (2.5 % of an echo, measured). No code cancels a worker thread: call the kernel directly. */

static ssize_t receive_now(SOCKET fd, void *data, size_t length)
{
    return syscall(SYS_recvfrom, fd, data, length, MSG_DONTWAIT, NULL, NULL);
}

static ssize_t send_now(SOCKET fd, const void *data, size_t length)
{
    return syscall(SYS_sendto, fd, data, length, MSG_DONTWAIT | MSG_NOSIGNAL, NULL, 0);
}

/* ---- attempts: 0 done (InternalHigh set), EINPROGRESS not yet, else the operation's error ---- */

static int try_accept(struct iocp_socket *s, OVERLAPPED *overlapped)
{
    int error = socket_accept(s, overlapped);

    overlapped->InternalHigh = 0;
    if (error != EAGAIN)
        return error;
    s->readable = 0;
    return EINPROGRESS;
}

static int try_receive(struct iocp_socket *s, OVERLAPPED *overlapped)
{
    size_t length = overlapped_length(overlapped);
    int arrived = s->arrived;
    ssize_t n;
    char peek;

    s->arrived = 0;
    if (length == 0 && arrived)
        n = 0;
    else if (length == 0)
        n = recv(s->fd, &peek, 1, MSG_PEEK | MSG_DONTWAIT);
    else if (overlapped->buffers == 1)
        n = receive_now(s->fd, overlapped->first.iov_base, length);
    else
        n = recvmsg(s->fd, overlapped_message(overlapped), MSG_DONTWAIT);
    if (n >= 0) {
        overlapped->InternalHigh = length == 0 ? 0 : (size_t)n;
        /* A short receive has emptied the socket, so the next byte makes an edge: epoll(7), the last of its questions
         * and answers. That does not hold before an end or urgent data. */
        if ((size_t)n < length && !s->sticky)
            s->readable = 0;
        return 0;
    }
    if (errno != EAGAIN)
        return errno;
    s->readable = 0;
    return EINPROGRESS;
}

/* A short send goes on when there is room again, as WSASend does: it completes with all its bytes or fails. */
static int try_send(struct iocp_socket *s, OVERLAPPED *overlapped)
{
    size_t left = overlapped_length(overlapped);
    ssize_t n;

    for (;;) {
        if (overlapped->buffers == 1)
            n = send_now(s->fd, overlapped->first.iov_base, left);
        else
            n = sendmsg(s->fd, overlapped_message(overlapped), MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            s->writable = 0;
            return EINPROGRESS;
        }
        if (n < 0)
            return errno;
        overlapped->InternalHigh += (size_t)n;
        left -= (size_t)n;
        if (left == 0)
            return 0;
        overlapped_advance(overlapped, (size_t)n);
    }
}

static int try_connect(struct iocp_socket *s, OVERLAPPED *overlapped)
{
    struct sockaddr_storage peer;
    socklen_t length = sizeof(int);
    int error = 0;

    (void)overlapped;
    if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0)
        return errno;
    if (error != 0)
        return error;
    length = sizeof peer;
    if (getpeername(s->fd, (struct sockaddr *)&peer, &length) == 0)
        return 0;
    if (errno != ENOTCONN)
        return errno;
    s->writable = 0;
    return EINPROGRESS;
}

static int try_again(struct iocp_socket *s, OVERLAPPED *overlapped)
{
    switch (overlapped->kind) {
    case OVERLAPPED_ACCEPT:
        return try_accept(s, overlapped);
    case OVERLAPPED_CONNECT:
        return try_connect(s, overlapped);
    case OVERLAPPED_RECEIVE:
        return try_receive(s, overlapped);
    default:
        return try_send(s, overlapped);
    }
}

static void finish(struct iocp_socket *s, OVERLAPPED *overlapped, int status)
{
    s->pending--;
    port_complete(overlapped, status, overlapped->InternalHigh);
}

/* ---- starting ---- */

static int begin_connect(struct iocp_socket *s, OVERLAPPED *overlapped)
{
    int error = socket_set_nonblocking(s->fd);

    if (error == 0 && connect(s->fd, overlapped->copy, overlapped->buffers) != 0)
        error = errno;
    if (error != 0 && error != EINPROGRESS)
        return error;
    s->writable = 0;
    error = epoll_register(s); /* only now: see epoll_associate */
    return error != 0 ? error : EINPROGRESS;
}

static int epoll_start(struct iocp_socket *s, OVERLAPPED *overlapped)
{
    int writes = overlapped->kind == OVERLAPPED_CONNECT || overlapped->kind == OVERLAPPED_SEND;
    struct overlapped_queue *queue = writes ? &s->writing : &s->reading;
    int error = EINPROGRESS;

    if (overlapped->kind == OVERLAPPED_CONNECT) {
        error = begin_connect(s, overlapped);
    } else {
        int fresh = !s->registered;

        if (queue->head == NULL && (writes ? s->writable : s->readable))
            error = try_again(s, overlapped);
        if (error == EINPROGRESS && fresh) {
            int failed = epoll_register(s);

            if (failed != 0)
                error = failed;
        }
    }
    if (error == EINPROGRESS) {
        overlapped_enqueue(queue, overlapped);
        s->pending++;
    } else if (error != 0 && overlapped->InternalHigh > 0) {
        s->pending++;
        finish(s, overlapped, error); /* part of it is sent: only a packet can tell that and the error */
        error = EINPROGRESS;
    }
    return error;
}

/* ---- completing ---- */

static void serve_queue(struct iocp_socket *s, struct overlapped_queue *queue)
{
    OVERLAPPED *overlapped;

    while ((overlapped = queue->head) != NULL) {
        int error = try_again(s, overlapped);

        if (error == EINPROGRESS)
            return;
        overlapped_dequeue(queue);
        finish(s, overlapped, error);
    }
}

static void on_edges(struct iocp_port *port, uint64_t name, uint32_t edges)
{
    struct iocp_socket *s = socket_named(port, (uint32_t)name, (uint32_t)(name >> 32));

    if (s == NULL)
        return; /* closed here, kept open by another process */
    if (edges & (EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI))
        s->sticky = 1;
    if (edges & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI)) {
        s->readable = 1;
        s->arrived = !s->sticky; /* if sticky it may be an error, which a zero-byte receive must return */
        serve_queue(s, &s->reading);
    }
    if (edges & (EPOLLOUT | EPOLLHUP | EPOLLERR)) {
        s->writable = 1;
        serve_queue(s, &s->writing);
    }
}

static void cancel_queue(struct iocp_socket *s, struct overlapped_queue *queue)
{
    OVERLAPPED *overlapped;

    while ((overlapped = overlapped_dequeue(queue)) != NULL)
        finish(s, overlapped, ERROR_OPERATION_ABORTED);
}

static void epoll_cancel(struct iocp_socket *s, OVERLAPPED *overlapped)
{
    if (overlapped == NULL) {
        cancel_queue(s, &s->reading);
        cancel_queue(s, &s->writing);
    } else if (overlapped_remove(&s->reading, overlapped) || overlapped_remove(&s->writing, overlapped)) {
        finish(s, overlapped, ERROR_OPERATION_ABORTED);
    }
}

static void epoll_detach(struct iocp_socket *s)
{
    epoll_cancel(s, NULL);
}

/* Asks the socket: one wait returns EVENTS edges at most, so an edge may not have been seen yet. */
static int epoll_has_come(struct iocp_socket *s, OVERLAPPED *overlapped)
{
    return socket_is_ready(s->fd, overlapped);
}

static int wait_for_edges(struct iocp_port *port, int64_t nanoseconds)
{
    struct epoll_port *ep = port->backend_data;
    /* Rounded up: after a wait that ended early the caller would only wait again. */
    int64_t milliseconds = nanoseconds < 0 ? -1 : (nanoseconds + 999999) / 1000000;

    return epoll_pwait(ep->epoll, ep->events, EVENTS, milliseconds > INT_MAX ? INT_MAX : (int)milliseconds,
                       port_signals(port));
}

static int epoll_wait_edges(struct iocp_port *port, int64_t nanoseconds)
{
    struct epoll_port *ep = port->backend_data;
    int n = wait_for_edges(port, nanoseconds);

    if (n < 0)
        return errno == EINTR ? 0 : errno;
    for (int i = 0; i < n; i++) {
        if (ep->events[i].data.u64 != WAKEUP)
            on_edges(port, ep->events[i].data.u64, ep->events[i].events);
    }
    return 0;
}

static void epoll_submit(struct iocp_port *port)
{
    (void)port;
}

static void epoll_wake(struct iocp_port *port)
{
    struct epoll_port *ep = port->backend_data;
    ssize_t written = write(ep->wakeup, &(uint64_t){1}, sizeof(uint64_t));

    (void)written; /* it fails only after 2^64 wake-ups, because the eventfd is never read */
}

static uint64_t epoll_now(struct iocp_port *port)
{
    struct timespec now;

    (void)port;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

const struct iocp_backend epoll_backend = {
    .name = "epoll",
    .missing = epoll_missing,
    .open = epoll_open,
    .close = epoll_close,
    .disown = epoll_disown,
    .own = epoll_own,
    .associate = epoll_associate,
    .start = epoll_start,
    .cancel = epoll_cancel,
    .detach = epoll_detach,
    .has_come = epoll_has_come,
    .wait = epoll_wait_edges,
    .submit = epoll_submit,
    .wake = epoll_wake,
    .now = epoll_now,
};
