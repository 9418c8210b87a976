/* The floor on io_uring: a single-threaded server; an echo is one recv and one send SQE, a loop one enter.
 *
 * Ownership: a connection belongs to the loop, but its buffer to the kernel while its one operation is in flight. With
 * a single operation a batch holds at most one result of it, so it can be freed as soon as that result ends it.
 * In a broadcast a connection has two: a recv, and a send as long as its outbox is not empty. The outbox belongs to the
 * kernel during the send. Who comes second, the recv's end or the last send, frees the connection.
 * Threads: one; the ring is told so (SINGLE_ISSUER), and completes operations only inside our enter (DEFER_TASKRUN).
 */
#include <liburing.h>
#include <stddef.h>

#include "server.h"

enum { ENTRIES = 4096 };

enum { BUFFER = 64 * 1024 }; /* each connection has one: larger, malloc would map it anew for each */
enum { SEND = 1 }; /* marks a result of a broadcast as that of a send: addresses are even */

/* What a connection is to be sent of broadcasts. */
struct outbox {
    char *data;
    size_t length, room;
};

struct connection {
    int fd;
    uint64_t length, sent; /* sent < length: a send is in flight; equal: a recv, which a broadcast always has */
    struct outbox sending, waiting;     /* of a broadcast: `length` and `sent` are those of the first */
    struct connection *next, *previous; /* of all that a broadcast reaches: a ring */
    bool ended;
    char buffer[BUFFER];
};

static enum service service;
static const char *blocks;
static struct connection all = {.next = &all, .previous = &all};

static struct io_uring_sqe *next_sqe(struct io_uring *ring)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring);

    if (sqe == NULL) { /* a batch larger than the queue costs one more enter */
        io_uring_submit(ring);
        sqe = io_uring_get_sqe(ring);
    }
    if (sqe == NULL)
        die("io_uring_submit", EBUSY);
    return sqe;
}

/* Multishot: one SQE accepts until it says otherwise. Its results carry no connection. */
static void start_accept(struct io_uring *ring, int listener)
{
    struct io_uring_sqe *sqe = next_sqe(ring);

    io_uring_prep_multishot_accept(sqe, listener, NULL, NULL, SOCK_CLOEXEC);
    io_uring_sqe_set_data(sqe, NULL);
}

static void start_receive(struct io_uring *ring, struct connection *c)
{
    struct io_uring_sqe *sqe = next_sqe(ring);

    io_uring_prep_recv(sqe, c->fd, c->buffer, sizeof c->buffer, 0);
    io_uring_sqe_set_data(sqe, c);
}

static size_t at_most(uint64_t value, size_t limit)
{
    return value < limit ? (size_t)value : limit;
}

/* What is to be sent next. */
static const char *outgoing(const struct connection *c, size_t *length)
{
    uint64_t left = c->length - c->sent;

    if (service == BULK) {
        *length = at_most(left, BLOCK);
        return blocks + c->sent % BLOCK;
    }
    *length = service == TWO_WRITES && c->sent < HEADER ? at_most(left, HEADER - c->sent) : (size_t)left;
    return c->buffer + c->sent;
}

static void start_send(struct io_uring *ring, struct connection *c)
{
    struct io_uring_sqe *sqe = next_sqe(ring);
    size_t length;
    const char *data = outgoing(c, &length);

    io_uring_prep_send(sqe, c->fd, data, length, MSG_NOSIGNAL);
    io_uring_sqe_set_data(sqe, c);
}

static void add_connection(struct io_uring *ring, int fd)
{
    struct connection *c = malloc(sizeof *c); /* not cleared: the buffer's pages are touched only as far as used */

    if (c == NULL)
        die("malloc", errno);
    memset(c, 0, offsetof(struct connection, buffer));
    c->fd = fd;
    c->next = all.next;
    c->previous = &all;
    all.next->previous = c;
    all.next = c;
    start_receive(ring, c);
}

static void forget(struct connection *c)
{
    c->next->previous = c->previous;
    c->previous->next = c->next;
}

static void free_connection(struct connection *c)
{
    close(c->fd);
    free(c->sending.data);
    free(c->waiting.data);
    free(c);
}

static void close_connection(struct connection *c)
{
    forget(c);
    free_connection(c);
}

static void on_accept(struct io_uring *ring, int listener, const struct io_uring_cqe *cqe)
{
    if (cqe->res >= 0)
        add_connection(ring, cqe->res);
    else
        accept_failed(-cqe->res);
    if (!(cqe->flags & IORING_CQE_F_MORE))
        start_accept(ring, listener);
}

static void on_sent(struct io_uring *ring, struct connection *c, unsigned sent)
{
    c->sent += sent;
    if (c->sent < c->length) {
        start_send(ring, c); /* the rest goes on its own */
    } else {
        c->length = c->sent = 0;
        start_receive(ring, c);
    }
}

static void on_received(struct io_uring *ring, struct connection *c, unsigned length)
{
    c->length = service == BULK ? wanted(c->buffer, length) : length;
    start_send(ring, c);
}

static void on_result(struct io_uring *ring, struct connection *c, int result)
{
    if (result <= 0)
        close_connection(c); /* the peer's end, or a failure */
    else if (c->sent < c->length)
        on_sent(ring, c, (unsigned)result);
    else
        on_received(ring, c, (unsigned)result);
}

/* ---- broadcast ---- */

static void append(struct outbox *outbox, const char *data, size_t length)
{
    if (outbox->room < outbox->length + length) {
        outbox->room = 2 * (outbox->length + length);
        outbox->data = realloc(outbox->data, outbox->room);
        if (outbox->data == NULL)
            die("realloc", errno);
    }
    memcpy(outbox->data + outbox->length, data, length);
    outbox->length += length;
}

static void send_outbox(struct io_uring *ring, struct connection *c)
{
    struct io_uring_sqe *sqe = next_sqe(ring);

    io_uring_prep_send(sqe, c->fd, c->sending.data + c->sent, c->length - c->sent, MSG_NOSIGNAL);
    io_uring_sqe_set_data64(sqe, (uintptr_t)c | SEND);
}

/* What waits becomes what is sent; the emptied outbox takes what comes meanwhile. */
static void send_waiting(struct io_uring *ring, struct connection *c)
{
    struct outbox emptied = c->sending;

    c->sending = c->waiting;
    c->waiting = emptied;
    c->waiting.length = 0;
    c->length = c->sending.length;
    c->sent = 0;
    if (c->length > 0)
        send_outbox(ring, c);
}

static void broadcast(struct io_uring *ring, const char *data, size_t length)
{
    for (struct connection *c = all.next; c != &all; c = c->next) {
        append(&c->waiting, data, length);
        if (c->sent == c->length)
            send_waiting(ring, c);
    }
}

/* A connection that cannot be sent to is closed by its recv's end. */
static void on_broadcast_sent(struct io_uring *ring, struct connection *c, int result)
{
    c->sent += result > 0 ? (uint64_t)result : c->length - c->sent;
    if (c->sent < c->length)
        send_outbox(ring, c);
    else
        send_waiting(ring, c);
    if (c->ended && c->sent == c->length)
        free_connection(c);
}

static void on_broadcast_received(struct io_uring *ring, struct connection *c, int result)
{
    if (result > 0) {
        broadcast(ring, c->buffer, (size_t)result);
        start_receive(ring, c);
        return;
    }
    forget(c);
    c->ended = true;
    if (c->sent == c->length)
        free_connection(c);
}

static void on_broadcast_result(struct io_uring *ring, uint64_t data, int result)
{
    struct connection *c = (struct connection *)(uintptr_t)(data & ~(uint64_t)SEND);

    if (data & SEND)
        on_broadcast_sent(ring, c, result);
    else
        on_broadcast_received(ring, c, result);
}

static void serve(struct io_uring *ring, int listener)
{
    start_accept(ring, listener);
    for (;;) {
        int error = -io_uring_submit_and_wait(ring, 1);
        unsigned head, count = 0;
        struct io_uring_cqe *cqe;

        if (error > 0 && error != EINTR)
            die("io_uring_submit_and_wait", error);
        io_uring_for_each_cqe(ring, head, cqe) {
            struct connection *c = io_uring_cqe_get_data(cqe);

            if (c == NULL)
                on_accept(ring, listener, cqe);
            else if (service == BROADCAST)
                on_broadcast_result(ring, cqe->user_data, cqe->res);
            else
                on_result(ring, c, cqe->res);
            count++;
        }
        io_uring_cq_advance(ring, count);
    }
}

int main(int argc, char **argv)
{
    struct options options = parse_arguments(argc, argv);
    struct io_uring ring;
    int error = -io_uring_queue_init(ENTRIES, &ring, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);

    if (error != 0) { /* no io_uring, or forbidden, or a kernel older than these flags */
        fprintf(stderr, "io_uring is not available: %s\n", strerror(error));
        return EXIT_NOT_AVAILABLE;
    }
    service = options.service;
    blocks = make_blocks();
    serve(&ring, start_listening(options.address, 0));
}
