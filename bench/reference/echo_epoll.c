/* The floor on epoll: a single-threaded echo server, level-triggered, one recv and one send a request.
 *
 * Ownership: a connection belongs to the loop, from its accept to close_connection(), which frees it. It has one
 * registration, so a batch holds at most one event of it, and none can refer to a connection freed earlier in the batch.
 * Threads: one.
 */
#define _GNU_SOURCE /* accept4 */
#include <stdbool.h>
#include <sys/epoll.h>

#include "server.h"

enum { EVENTS = 1024 };

/* While a rest waits to be sent the connection is watched for EPOLLOUT alone: a peer that does not read its echoes is
 * not read from. */
struct connection {
    int fd;
    char *rest; /* what a short send has left over; NULL as a rule */
    size_t length, sent;
};

static char received[BUFFER]; /* one for all: what arrives is sent on, or copied to a rest, before the next recv */

static void watch(int epoll, int operation, struct connection *c, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = c};

    if (epoll_ctl(epoll, operation, c->fd, &event) != 0)
        die("epoll_ctl", errno);
}

static void close_connection(struct connection *c)
{
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

static void keep_rest(int epoll, struct connection *c, const char *data, size_t length)
{
    c->rest = malloc(length);
    if (c->rest == NULL)
        die("malloc", errno);
    memcpy(c->rest, data, length);
    c->length = length;
    c->sent = 0;
    watch(epoll, EPOLL_CTL_MOD, c, EPOLLOUT);
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
        watch(epoll, EPOLL_CTL_MOD, c, EPOLLIN);
    }
    return true;
}

static bool echo(int epoll, struct connection *c)
{
    ssize_t length = recv(c->fd, received, sizeof received, 0), sent;

    if (length <= 0)
        return length < 0 && errno == EAGAIN;
    sent = try_send(c->fd, received, (size_t)length);
    if (sent >= 0 && sent < length)
        keep_rest(epoll, c, received + sent, (size_t)(length - sent));
    return sent >= 0;
}

static void on_event(int epoll, struct connection *c)
{
    /* Errors and hang-ups are left to recv and send, which name them. */
    if (!(c->rest != NULL ? send_rest(epoll, c) : echo(epoll, c)))
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
    struct connection listener = {.fd = start_listening(argc, argv, SOCK_NONBLOCK)};
    int epoll = epoll_create1(EPOLL_CLOEXEC);

    if (epoll < 0)
        die("epoll_create1", errno);
    watch(epoll, EPOLL_CTL_ADD, &listener, EPOLLIN);
    serve(epoll, &listener);
}
