/* What the reference servers share: their arguments, what they serve, the listening socket, the first line, the end.
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
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BACKLOG = 4096 };
enum { HEADER = 4 };                      /* bytes of an answer's first write, where there are two */
enum { REQUEST = 8, BLOCK = 64 * 1024 };  /* bytes of a request for a bulk answer; after which the answer repeats */
enum { EXIT_USAGE = 2, EXIT_NOT_AVAILABLE = 3 };

/* What is done with the bytes that come.
 * ECHO: they go back. TWO_WRITES: too, header and body written one after the other. BULK: they say how many bytes are
 * wanted, which are those of the block over and over. BROADCAST: they go to every connection. */
enum service { ECHO, TWO_WRITES, BULK, BROADCAST };
static const char *const services[] = {"echo", "two-writes", "bulk", "broadcast", NULL};

struct options {
    struct sockaddr_in address;
    enum service service;
};

static inline void die(const char *what, int error)
{
    fprintf(stderr, "%s: %s\n", what, strerror(error));
    exit(EXIT_FAILURE);
}

static inline void usage(const char *problem)
{
    fprintf(stderr, "%s\nusage: [--port 0-65535] [--service NAME]\n", problem);
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

static inline enum service parse_service(const char *text)
{
    for (unsigned i = 0; services[i] != NULL; i++)
        if (strcmp(services[i], text) == 0)
            return i;
    usage("--service is not one of them");
    return ECHO;
}

static inline struct options parse_arguments(int argc, char **argv)
{
    static const struct option known[] = {{"port", required_argument, NULL, 'p'},
                                          {"service", required_argument, NULL, 's'},
                                          {0}};
    struct options options = {
        .address = {.sin_family = AF_INET, .sin_port = htons(9999), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}};

    for (int c; (c = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        if (c == '?')
            usage("unknown or incomplete option");
        if (c == 'p')
            options.address.sin_port = parse_port(optarg);
        if (c == 's')
            options.service = parse_service(optarg);
    }
    if (optind != argc)
        usage("unexpected argument");
    return options;
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

/* The listening socket at that address; flags are those of socket(). Ends the process if it cannot be had. */
static inline int start_listening(struct sockaddr_in address, int flags)
{
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

/* Two blocks: any BLOCK bytes of an answer lie in one piece. */
static inline char *make_blocks(void)
{
    char *blocks = malloc(2 * BLOCK);

    if (blocks == NULL)
        die("malloc", errno);
    for (size_t i = 0; i < 2 * BLOCK; i++)
        blocks[i] = (char)(i * 7 + i % BLOCK / 256);
    return blocks;
}

/* How many bytes a request asks for. It comes in one piece from our load; a floor needs no more. */
static inline uint64_t wanted(const char *request, size_t length)
{
    uint64_t count = 0;

    if (length != REQUEST)
        die("request", EPROTO);
    for (size_t i = 0; i < REQUEST; i++)
        count = count << 8 | (unsigned char)request[i];
    return count;
}

/* Out of resources is the end of a reference: a floor measured with connections missing would be no floor.
 * Any other error belongs to the one connection that is already gone. */
static inline void accept_failed(int error)
{
    if (error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM || error == EINVAL)
        die("accept", error);
}

#endif
