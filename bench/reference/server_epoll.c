/* The floor on epoll: a single-threaded server, level-triggered; an echo is one recv and one send.
 *
 * Ownership: a connection belongs to the loop, from its accept to close_connection(), which frees it. It has one
 * registration, so a batch holds at most one event of it, and only that event closes it: none can refer to a connection
 * freed earlier in the batch.
 * Threads: one.
 */
#define _GNU_SOURCE /* accept4 */
#include <sys/epoll.h>

#include "server.h"

enum { EVENTS = 1024, BUFFER = 128 * 1024 };

/* While a rest waits to be sent the connection is watched for EPOLLOUT alone: a peer that does not read its echoes is
 * not read from. */
struct connection {
    int fd;
    char *rest; /* what a short send has left over; NULL as a rule */
    size_t length, sent;
    uint64_t answered, answer;         /* of bulk: bytes sent, and to be sent */
    struct connection *next, *previous; /* of all connections: a ring */
};

static enum service service;
static const char *blocks;
static struct connection all = {.next = &all, .previous = &all};
static char received[BUFFER]; /* one for all: what arrives is sent on, or copied to a rest, before the next recv */

static void watch(int epoll, int operation, struct connection *c, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = c};

    if (epoll_ctl(epoll, operation, c->fd, &event) != 0)
        die("epoll_ctl", errno);
}

static void close_connection(struct connection *c)
{
    c->next->previous = c->previous;
    c->previous->next = c->next;
    close(c->fd); /* the only descriptor of this socket: epoll forgets it too */
    free(c->rest);
    free(c);
}

static void add_connection(int epoll, int fd)
{
    struct connection *c = calloc(1, sizeof *c);

    if (c == NULL)
        die("calloc", errno);
    c->fd = fd;
    c->next = all.next;
    c->previous = &all;
    all.next->previous = c;
    all.next = c;
    watch(epoll, EPOLL_CTL_ADD, c, EPOLLIN);
}

static void accept_waiting(int epoll, int listener)
{
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd >= 0) {
            add_connection(epoll, fd);
        } else if (errno == EAGAIN) {
            return;
        } else {
            accept_failed(errno);
        }
    }
}

/* Bytes sent, 0 if there is no room now, -1 if the connection has failed. */
static ssize_t try_send(int fd, const char *data, size_t length)
{
    ssize_t sent = send(fd, data, length, MSG_NOSIGNAL);

    return sent < 0 && errno == EAGAIN ? 0 : sent;
}

static void append_rest(int epoll, struct connection *c, const char *data, size_t length)
{
    char *rest = realloc(c->rest, c->length + length);

    if (rest == NULL)
        die("realloc", errno);
    memcpy(rest + c->length, data, length);
    if (c->rest == NULL)
        watch(epoll, EPOLL_CTL_MOD, c, EPOLLOUT);
    c->rest = rest;
    c->length += length;
}

static bool deliver(int epoll, struct connection *c, const char *data, size_t length)
{
    ssize_t sent = c->rest != NULL ? 0 : try_send(c->fd, data, length);

    if (sent >= 0 && (size_t)sent < length)
        append_rest(epoll, c, data + sent, length - (size_t)sent);
    return sent >= 0;
}

static bool send_rest(int epoll, struct connection *c)
{
    ssize_t sent = try_send(c->fd, c->rest + c->sent, c->length - c->sent);

    if (sent < 0)
        return false;
    c->sent += (size_t)sent;
    if (c->sent == c->length) {
        free(c->rest);
        c->rest = NULL;
        c->length = c->sent = 0;
        watch(epoll, EPOLL_CTL_MOD, c, EPOLLIN);
    }
    return true;
}

static bool two_writes(int epoll, struct connection *c, size_t length)
{
    size_t header = length < HEADER ? length : HEADER;

    return deliver(epoll, c, received, header) &&
           (header == length || deliver(epoll, c, received + header, length - header));
}

/* As much of the answer as there is room for; the rest when there is again. */
static bool answer(int epoll, struct connection *c)
{
    while (c->answered < c->answer) {
        uint64_t left = c->answer - c->answered;
        ssize_t sent = try_send(c->fd, blocks + c->answered % BLOCK, left < BLOCK ? left : BLOCK);

        if (sent <= 0)
            return sent == 0;
        c->answered += (uint64_t)sent;
    }
    watch(epoll, EPOLL_CTL_MOD, c, EPOLLIN);
    return true;
}

static bool begin_answer(int epoll, struct connection *c, size_t length)
{
    c->answer += wanted(received, length);
    watch(epoll, EPOLL_CTL_MOD, c, EPOLLOUT);
    return answer(epoll, c);
}

/* A connection that cannot be sent to is closed by its own event. */
static bool broadcast(int epoll, size_t length)
{
    for (struct connection *c = all.next; c != &all; c = c->next)
        deliver(epoll, c, received, length);
    return true;
}

static bool receive(int epoll, struct connection *c)
{
    ssize_t length = recv(c->fd, received, sizeof received, 0);

    if (length <= 0)
        return length < 0 && errno == EAGAIN;
    switch (service) {
    case ECHO:
        return deliver(epoll, c, received, (size_t)length);
    case TWO_WRITES:
        return two_writes(epoll, c, (size_t)length);
    case BULK:
        return begin_answer(epoll, c, (size_t)length);
    case BROADCAST:
        return broadcast(epoll, (size_t)length);
    }
    return false;
}

static bool go_on(int epoll, struct connection *c)
{
    if (c->rest != NULL)
        return send_rest(epoll, c);
    return c->answered < c->answer ? answer(epoll, c) : receive(epoll, c);
}

static void on_event(int epoll, struct connection *c)
{
    /* Errors and hang-ups are left to recv and send, which name them. */
    if (!go_on(epoll, c))
        close_connection(c);
}

static void serve(int epoll, struct connection *listener)
{
    static struct epoll_event events[EVENTS];

    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS, -1);

        if (count < 0 && errno != EINTR)
            die("epoll_wait", errno);
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr == listener)
                accept_waiting(epoll, listener->fd);
            else
                on_event(epoll, events[i].data.ptr);
        }
    }
}

int main(int argc, char **argv)
{
    struct options options = parse_arguments(argc, argv);
    struct connection listener = {.fd = start_listening(options.address, SOCK_NONBLOCK)};
    int epoll = epoll_create1(EPOLL_CLOEXEC);

    if (epoll < 0)
        die("epoll_create1", errno);
    service = options.service;
    blocks = make_blocks();
    watch(epoll, EPOLL_CTL_ADD, &listener, EPOLLIN);
    serve(epoll, &listener);
}
