/* The io_uring backend: a start only queues an SQE; the next dequeue submits all of them and waits, in one system call.
 * Only large sends and receives are tried at once.
 *
 * Ownership: the kernel owns a pending OVERLAPPED; its address is the user_data of the result. Of a listener's accepts
 * the kernel has only the first, as a poll; the others wait in the socket's queue. iovec arrays and connect addresses
 * were copied by socket.c, and live in or with the OVERLAPPED until the result.
 * Threads: the ring is SINGLE_ISSUER, and created disabled so that its owner need not be the thread that made it.
 */
#define _GNU_SOURCE
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "backend.h"

enum { ENTRIES = 512, RESULTS = 4096 };
enum { SMALL = 16384 }; /* bytes up to which a send or receive is only queued */

/* user_data of requests that are no operations; no OVERLAPPED has so low an address. */
enum { UNTRACKED = 1, WAKEUP = 2 };

struct uring_port {
    struct io_uring ring;
    int wakeup;
    int watching; /* the poll of `wakeup` is armed */
    int registered; /* the ring's descriptor, in the owner's thread */
    uint8_t unregistered_flags;
};

static int ring_open(struct io_uring *ring)
{
    /* SUBMIT_ALL: an invalid request ends by its result, and those queued after it are submitted nevertheless. */
    struct io_uring_params params = {
        .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_R_DISABLED |
                 IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE,
        .cq_entries = RESULTS};

    return -io_uring_queue_init_params(ENTRIES, ring, &params);
}

static const char *uring_missing(void)
{
    struct io_uring ring;

    switch (ring_open(&ring)) {
    case 0:
        io_uring_queue_exit(&ring);
        return NULL;
    case EPERM:
        return "io_uring_setup: not permitted (kernel.io_uring_disabled, or a container's seccomp filter)";
    case ENOSYS:
        return "io_uring_setup: the kernel does not have it";
    case EINVAL:
        return "io_uring_setup: Linux 6.1 or newer is needed";
    case ENOMEM:
        return "io_uring_setup: not enough locked memory (RLIMIT_MEMLOCK)";
    case EMFILE:
        return "io_uring_setup: no descriptor is left";
    default:
        return "io_uring_setup failed";
    }
}

static int uring_open(struct iocp_port *port)
{
    struct uring_port *up = calloc(1, sizeof *up);
    int error = ENOMEM;

    if (up == NULL)
        goto err1;
    /* Non-blocking: a blocking eventfd would hold an io_uring worker for ever. */
    up->wakeup = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (up->wakeup < 0) {
        error = errno;
        goto err2;
    }
    error = ring_open(&up->ring);
    if (error != 0)
        goto err3;
    io_uring_ring_dontfork(&up->ring); /* a child's mapping would keep the ring, and the sockets in it, open */
    port->backend_data = up;
    return 0;

err3:
    close(up->wakeup);
err2:
    free(up);
err1:
    return error;
}

/* A registered ring has an index in the table of the thread that registered it; the table goes when that thread ends.
 * Another thread may close the port. There some versions of liburing would unregister the same index in the closing
 * thread's table, which may be another ring. So the struct is made to look unregistered before liburing sees it. Our
 * own call names the ring by its descriptor: the kernel refuses it from a thread that does not own the ring. */
static void unregister(struct uring_port *up)
{
    struct io_uring_rsrc_update number = {.offset = (unsigned)up->ring.enter_ring_fd};

    if (!up->registered)
        return;
    up->ring.enter_ring_fd = up->ring.ring_fd;
    up->ring.int_flags = up->unregistered_flags;
    io_uring_register((unsigned)up->ring.ring_fd, IORING_UNREGISTER_RING_FDS, &number, 1);
}

static void uring_close(struct iocp_port *port)
{
    struct uring_port *up = port->backend_data;

    unregister(up);
    io_uring_queue_exit(&up->ring);
    close(up->wakeup);
    free(up);
}

/* The ring's memory is not mapped in the child: see uring_open(). */
static void uring_disown(struct iocp_port *port)
{
    struct uring_port *up = port->backend_data;

    close(up->ring.ring_fd);
    close(up->wakeup);
}

/* A free SQE, or NULL. A full queue is submitted first, which empties it. */
static struct io_uring_sqe *next_sqe(struct uring_port *up)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&up->ring);

    if (sqe == NULL && io_uring_submit(&up->ring) >= 0)
        sqe = io_uring_get_sqe(&up->ring);
    return sqe;
}

/* Multishot and edge-triggered: each write wakes, and the eventfd need not be read. If the kernel ends the poll, the
 * next wait arms it again. */
static void watch_wakeup(struct uring_port *up)
{
    struct io_uring_sqe *sqe;

    if (up->watching || (sqe = next_sqe(up)) == NULL)
        return;
    io_uring_prep_poll_multishot(sqe, up->wakeup, POLLIN | EPOLLET);
    io_uring_sqe_set_data64(sqe, WAKEUP);
    up->watching = 1;
}

static int uring_own(struct iocp_port *port)
{
    struct uring_port *up = port->backend_data;
    /* io_uring_enable_rings() by hand: the shared library of liburing 2.3 does not export it. */
    int error = -io_uring_register((unsigned)up->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);

    if (error != 0)
        return error;
    /* Saves the kernel a look-up of the descriptor at every call. Optional. */
    up->unregistered_flags = up->ring.int_flags;
    up->registered = io_uring_register_ring_fd(&up->ring) == 1;
    return 0;
}

/* For these requests the kernel ignores O_NONBLOCK: it tries, and polls if the socket is not ready. So the flag, which
 * other holders of the socket share, is left alone here. */
static int uring_associate(struct iocp_socket *s)
{
    (void)s;
    return 0;
}

/* ---- starting ---- */

static void prepare_receive(struct io_uring_sqe *sqe, SOCKET fd, OVERLAPPED *overlapped)
{
    if (overlapped_length(overlapped) == 0)
        io_uring_prep_poll_add(sqe, fd, POLLIN);
    else if (overlapped->buffers == 1)
        io_uring_prep_recv(sqe, fd, overlapped->first.iov_base, overlapped->first.iov_len, 0);
    else
        io_uring_prep_recvmsg(sqe, fd, overlapped_message(overlapped), 0);
}

static void prepare_send(struct io_uring_sqe *sqe, SOCKET fd, OVERLAPPED *overlapped)
{
    const int flags = MSG_NOSIGNAL | MSG_WAITALL; /* WAITALL: after a short send the kernel itself goes on */

    if (overlapped->buffers == 1)
        io_uring_prep_send(sqe, fd, overlapped->first.iov_base, overlapped->first.iov_len, flags);
    else
        io_uring_prep_sendmsg(sqe, fd, overlapped_message(overlapped), (unsigned)flags);
}

/* 0, or ENOBUFS: no SQE is free, and the kernel accepts none now. */
static int queue_sqe(struct iocp_socket *s, OVERLAPPED *overlapped)
{
    struct io_uring_sqe *sqe = next_sqe(s->port->backend_data);

    if (sqe == NULL)
        return ENOBUFS;
    switch (overlapped->kind) {
    case OVERLAPPED_ACCEPT:
        io_uring_prep_poll_add(sqe, s->fd, POLLIN);
        break;
    case OVERLAPPED_CONNECT:
        io_uring_prep_connect(sqe, s->fd, overlapped->copy, overlapped->buffers);
        break;
    case OVERLAPPED_RECEIVE:
        prepare_receive(sqe, s->fd, overlapped);
        break;
    default:
        prepare_send(sqe, s->fd, overlapped);
    }
    io_uring_sqe_set_data(sqe, overlapped);
    return 0;
}

/* The socket's queues list pending operations, for cancelling, and accepts that wait for their turn to poll. */
static struct overlapped_queue *queue_of(struct iocp_socket *s, const OVERLAPPED *overlapped)
{
    return overlapped->kind == OVERLAPPED_SEND ? &s->writing : &s->reading;
}

/* Only the first of a socket's accepts polls, for all of them; the kernel does not know the others. An IORING_OP_ACCEPT
 * would be an exclusive waiter: a connection would wake only one of the processes that share the listener, and wait
 * although the others are idle if that one is busy or killed. */
static int waits_its_turn(const struct iocp_socket *s, const OVERLAPPED *overlapped)
{
    return overlapped->kind == OVERLAPPED_ACCEPT && s->reading.head != NULL && s->reading.head != overlapped;
}

/* A large send is tried at once: its bytes are in the processor's cache now, and its buffers can be reused before the
 * next dequeue. 0: all is sent; EINPROGRESS: queue the rest; else the error. */
static int send_at_once(SOCKET fd, OVERLAPPED *overlapped)
{
    struct msghdr message = {.msg_iov = overlapped_buffers(overlapped), .msg_iovlen = overlapped->buffers};
    size_t length = overlapped_length(overlapped);
    ssize_t sent;

    if (length <= SMALL)
        return EINPROGRESS;
    sent = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0)
        return errno == EAGAIN || errno == EINTR ? EINPROGRESS : errno;
    overlapped->InternalHigh = (size_t)sent;
    overlapped_advance(overlapped, (size_t)sent);
    return (size_t)sent == length ? 0 : EINPROGRESS;
}

/* A large receive is tried at once too, if data is known to be there. If it were queued, the kernel would do the
 * receives of a whole batch in a row, and all their data would pass through the cache before the core reads any of it.
 * 0: done; EINPROGRESS: queue it; else the error. */
static int receive_at_once(struct iocp_socket *s, OVERLAPPED *overlapped)
{
    struct msghdr message = {.msg_iov = overlapped_buffers(overlapped), .msg_iovlen = overlapped->buffers};
    size_t length = overlapped_length(overlapped);
    ssize_t received;

    if (length <= SMALL || !s->arrived || s->reading.head != NULL)
        return EINPROGRESS;
    received = recvmsg(s->fd, &message, MSG_DONTWAIT);
    s->arrived = received == (ssize_t)length;
    if (received < 0)
        return errno == EAGAIN || errno == EINTR ? EINPROGRESS : errno;
    overlapped->InternalHigh = (size_t)received;
    return 0;
}

static int try_at_once(struct iocp_socket *s, OVERLAPPED *overlapped)
{
    switch (overlapped->kind) {
    case OVERLAPPED_RECEIVE:
        return receive_at_once(s, overlapped);
    case OVERLAPPED_SEND:
        return send_at_once(s->fd, overlapped);
    default:
        return EINPROGRESS;
    }
}

static void finish(struct iocp_socket *s, OVERLAPPED *overlapped, int status)
{
    overlapped_remove(queue_of(s, overlapped), overlapped);
    s->pending--;
    port_complete(overlapped, status, overlapped->InternalHigh);
}

static int uring_start(struct iocp_socket *s, OVERLAPPED *overlapped)
{
    int error = try_at_once(s, overlapped);

    if (error != EINPROGRESS)
        return error;
    error = waits_its_turn(s, overlapped) ? 0 : queue_sqe(s, overlapped);
    if (error != 0 && overlapped->InternalHigh == 0)
        return error;
    overlapped_enqueue(queue_of(s, overlapped), overlapped);
    s->pending++;
    if (error != 0)
        finish(s, overlapped, error); /* part of it is sent: only a packet can tell that and the error */
    return EINPROGRESS;
}

/* ---- cancelling ---- */

static void cancel_one(struct uring_port *up, OVERLAPPED *overlapped)
{
    struct io_uring_sqe *sqe;

    if (overlapped->flags & OVERLAPPED_CANCELLED)
        return;
    if (waits_its_turn(overlapped->socket, overlapped)) {
        finish(overlapped->socket, overlapped, ERROR_OPERATION_ABORTED);
        return;
    }
    sqe = next_sqe(up);
    if (sqe == NULL)
        return; /* not marked as cancelled, so that the caller may try again */
    overlapped->flags |= OVERLAPPED_CANCELLED;
    io_uring_prep_cancel(sqe, overlapped, 0);
    io_uring_sqe_set_data64(sqe, UNTRACKED);
    io_uring_sqe_set_flags(sqe, IOSQE_CQE_SKIP_SUCCESS);
}

static void cancel_queue(struct uring_port *up, struct overlapped_queue *queue)
{
    OVERLAPPED *overlapped = queue->head, *next;

    for (; overlapped != NULL; overlapped = next) {
        next = overlapped->next;
        cancel_one(up, overlapped);
    }
}

static void uring_cancel(struct iocp_socket *s, OVERLAPPED *overlapped)
{
    struct uring_port *up = s->port->backend_data;

    if (overlapped != NULL) {
        cancel_one(up, overlapped);
        return;
    }
    cancel_queue(up, &s->reading);
    cancel_queue(up, &s->writing);
}

/* close(2) cancels no request, and an SQE that is submitted after it would act on the number's next owner: so cancel
 * and submit now. A cancelled request holds the socket until its result is produced, and a listener's port stays taken
 * as long: so the results are produced here too. */
static void uring_detach(struct iocp_socket *s)
{
    struct uring_port *up = s->port->backend_data;

    uring_cancel(s, NULL);
    io_uring_submit_and_get_events(&up->ring);
}

/* ---- completing ---- */

/* 0: all is sent. EINPROGRESS: a short send is queued again, and its next result tells why it was short. */
static int on_sent(struct iocp_socket *s, OVERLAPPED *overlapped, size_t sent)
{
    size_t length = overlapped_length(overlapped);

    overlapped->InternalHigh += sent;
    if (sent >= length)
        return 0;
    if (sent == 0 || (overlapped->flags & OVERLAPPED_CANCELLED))
        return ERROR_OPERATION_ABORTED;
    overlapped_advance(overlapped, sent);
    return queue_sqe(s, overlapped) == 0 ? EINPROGRESS : ENOBUFS;
}

/* A listener's poll has ended: accept until no connection or no accept is left, then poll again for the accepts that
 * are. A cancelled accept ends without a look at the socket: it may be closed, and its number another's. */
static void on_acceptable(struct iocp_socket *s, int status)
{
    struct overlapped_queue *accepts = &s->reading;

    if (accepts->head->flags & OVERLAPPED_CANCELLED)
        status = ERROR_OPERATION_ABORTED;
    if (status != 0)
        finish(s, accepts->head, status);
    else
        while (accepts->head != NULL && (status = socket_accept(s, accepts->head)) != EAGAIN)
            finish(s, accepts->head, status);
    while (accepts->head != NULL && queue_sqe(s, accepts->head) != 0)
        finish(s, accepts->head, ENOBUFS);
}

static void on_received(struct iocp_socket *s, OVERLAPPED *overlapped, const struct io_uring_cqe *cqe)
{
    int polled = overlapped_length(overlapped) == 0; /* then the result is a poll mask, not a length */

    overlapped->InternalHigh = polled ? 0 : (size_t)cqe->res;
    s->arrived = polled || (cqe->flags & IORING_CQE_F_SOCK_NONEMPTY) != 0;
}

static void on_result(const struct io_uring_cqe *cqe)
{
    OVERLAPPED *overlapped = io_uring_cqe_get_data(cqe);
    struct iocp_socket *s = overlapped->socket;
    int status = cqe->res < 0 ? -cqe->res : 0;

    if (overlapped->kind == OVERLAPPED_ACCEPT) {
        on_acceptable(s, status);
        return;
    }
    if (status == 0) {
        switch (overlapped->kind) {
        case OVERLAPPED_RECEIVE:
            on_received(s, overlapped, cqe);
            break;
        case OVERLAPPED_SEND:
            status = on_sent(s, overlapped, (size_t)cqe->res);
            if (status == EINPROGRESS)
                return;
            break;
        }
    }
    finish(s, overlapped, status);
}

static void reap(struct uring_port *up)
{
    struct io_uring_cqe *cqe;
    unsigned head, n = 0;

    io_uring_for_each_cqe(&up->ring, head, cqe) {
        n++;
        if (cqe->user_data == WAKEUP)
            up->watching = (cqe->flags & IORING_CQE_F_MORE) != 0;
        else if (cqe->user_data != UNTRACKED)
            on_result(cqe);
    }
    io_uring_cq_advance(&up->ring, n);
}

/* A submit since the last wait may have brought results. The kernel may hold back more than it delivers at a time, so
 * the socket is asked too. */
static int uring_has_come(struct iocp_socket *s, OVERLAPPED *overlapped)
{
    reap(s->port->backend_data);
    return overlapped->Internal != STATUS_PENDING || socket_is_ready(s->fd, overlapped);
}

/* Since Linux 6.13 one call delivers at most some twenty results of deferred work, for example of cancelled requests
 * (IO_LOCAL_TW_DEFAULT_MAX): call until none comes. */
static void uring_collect(struct iocp_port *port)
{
    struct uring_port *up = port->backend_data;
    unsigned results;

    do {
        io_uring_submit_and_get_events(&up->ring);
        results = io_uring_cq_ready(&up->ring);
        reap(up);
    } while (results > 0);
}

static int uring_wait(struct iocp_port *port, int64_t nanoseconds)
{
    struct uring_port *up = port->backend_data;
    struct __kernel_timespec timeout = {.tv_sec = nanoseconds / 1000000000, .tv_nsec = nanoseconds % 1000000000};
    struct io_uring_cqe *first;
    int result;

    watch_wakeup(up);
    if (nanoseconds == 0 || !up->watching)
        result = io_uring_submit_and_get_events(&up->ring);
    else
        result = io_uring_submit_and_wait_timeout(&up->ring, &first, 1, nanoseconds < 0 ? NULL : &timeout,
                                                   (sigset_t *)(uintptr_t)port_signals(port));
    reap(up);
    /* None of these is an error: the caller looks at the queue and the clock. */
    return result >= 0 || result == -ETIME || result == -EINTR || result == -EAGAIN || result == -EBUSY ? 0 : -result;
}

static void uring_submit(struct iocp_port *port)
{
    struct uring_port *up = port->backend_data;

    if (io_uring_sq_ready(&up->ring) > 0)
        io_uring_submit(&up->ring);
}

static void uring_wake(struct iocp_port *port)
{
    struct uring_port *up = port->backend_data;
    ssize_t written = write(up->wakeup, &(uint64_t){1}, sizeof(uint64_t));

    (void)written; /* it fails only after 2^64 wake-ups, because the eventfd is never read */
}

static uint64_t uring_now(struct iocp_port *port)
{
    struct timespec now;

    (void)port;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

const struct iocp_backend uring_backend = {
    .name = "uring",
    .missing = uring_missing,
    .open = uring_open,
    .close = uring_close,
    .disown = uring_disown,
    .own = uring_own,
    .associate = uring_associate,
    .start = uring_start,
    .cancel = uring_cancel,
    .detach = uring_detach,
    .has_come = uring_has_come,
    .collect = uring_collect,
    .wait = uring_wait,
    .submit = uring_submit,
    .wake = uring_wake,
    .now = uring_now,
};
