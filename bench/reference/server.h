/* What the reference servers share: their arguments, the listening socket, the first line, the end.
 *
 * Ownership: the caller owns the listening socket; it lives as long as the process.
 * Threads: one.
 */
#ifndef REFERENCE_SERVER_H
#define REFERENCE_SERVER_H

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BACKLOG = 4096, BUFFER = 16384 };
enum { EXIT_USAGE = 2, EXIT_NOT_AVAILABLE = 3 };

static inline void die(const char *what, int error)
{
    fprintf(stderr, "%s: %s\n", what, strerror(error));
    exit(EXIT_FAILURE);
}

static inline void usage(const char *problem)
{
    fprintf(stderr, "%s\nusage: [--host ADDRESS] [--port 0-65535]\n", problem);
    exit(EXIT_USAGE);
}

static inline in_port_t parse_port(const char *text)
{
    char *end;
    long port = strtol(text, &end, 10);

    if (end == text || *end != '\0' || port < 0 || port > 65535)
        usage("--port is not a port number");
    return htons((in_port_t)port);
}

static inline struct sockaddr_in parse_arguments(int argc, char **argv)
{
    static const struct option known[] = {{"host", required_argument, NULL, 'h'},
                                          {"port", required_argument, NULL, 'p'},
                                          {0}};
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(9999), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

    for (int c; (c = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        if (c == '?')
            usage("unknown or incomplete option");
        if (c == 'h' && inet_pton(AF_INET, optarg, &address.sin_addr) != 1)
            usage("--host is not an IPv4 address");
        if (c == 'p')
            address.sin_port = parse_port(optarg);
    }
    if (optind != argc)
        usage("unexpected argument");
    return address;
}

static inline void end(int number)
{
    (void)number;
    _exit(EXIT_SUCCESS); /* nothing waits to be written or freed */
}

/* As many descriptors as the system lets us have: thousands of connections pass the usual soft limit. */
static inline void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static inline void announce(int listener)
{
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    char host[INET_ADDRSTRLEN];

    if (getsockname(listener, (struct sockaddr *)&address, &length) != 0)
        die("getsockname", errno);
    inet_ntop(AF_INET, &address.sin_addr, host, sizeof host);
    printf("listening on %s:%d\n", host, ntohs(address.sin_port));
    fflush(stdout);
}

/* The listening socket that the arguments ask for; flags are those of socket(). Ends the process if it cannot be had. */
static inline int start_listening(int argc, char **argv, int flags)
{
    struct sockaddr_in address = parse_arguments(argc, argv);
    int on = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);

    if (listener < 0)
        die("socket", errno);
    raise_descriptor_limit();
    signal(SIGTERM, end);
    signal(SIGINT, end);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* accepted sockets inherit it */
    if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0)
        die("bind", errno);
    if (listen(listener, BACKLOG) != 0)
        die("listen", errno);
    announce(listener);
    return listener;
}

/* Out of resources is the end of a reference: a floor measured with connections missing would be no floor.
 * Any other error belongs to the one connection that is already gone. */
static inline void accept_failed(int error)
{
    if (error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM || error == EINVAL)
        die("accept", error);
}

#endif
