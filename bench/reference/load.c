/* The load generator: a closed loop over many connections, which checks every byte that returns.
 *
 * Each connection sends its own stream of bytes and keeps `pipeline` messages outstanding; a stream is a fixed random
 * pattern, entered at another place by each connection, so a byte that is lost, doubled, changed, moved or sent to the
 * wrong connection shows. One checked echo a connection comes first: the timed part meets connections that the server
 * has accepted and served. Afterwards the load ends its streams and awaits the server's end, so that bytes too many
 * show as well.
 *
 * With --gated it prints `ready` before the timed part and `done` after it, and goes on at a line on stdin: whoever
 * started it can look at the server in between.
 *
 * Ownership: the connections live as long as the process; a lost or finished one has fd -1.
 * Threads: one.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EXIT_USAGE = 2 };
enum { EVENTS = 1024, CHUNK = 65536, PERIOD = 65521 /* a prime: no message size divides it */ };

static struct {
    struct sockaddr_in address;
    uint64_t connections, pipeline, size, requests;
    double seconds, timeout;
    bool gated;
} options = {.connections = 50, .pipeline = 1, .size = 14, .timeout = 60};

struct connection {
    int fd;
    uint64_t phase;                   /* where in the pattern its stream begins */
    uint64_t allowed, sent, received; /* positions in its stream; allowed: the end of the last message issued */
    uint64_t faulty;                  /* 1 + the number of the message last counted as a mismatch */
    uint64_t *issued_at;              /* when each outstanding message was issued: a ring */
    bool blocked;                     /* waits for EPOLLOUT */
};

/* Latencies in ns: values up to 127 each have a bucket, larger ones share 64 buckets per power of two (1.6 %). */
enum { SUB_BITS = 6, BUCKETS = (64 - SUB_BITS + 1) << SUB_BITS };

static int epoll;
static struct connection *connections;
static unsigned char pattern[PERIOD + CHUNK];
static uint64_t histogram[BUCKETS];
static uint64_t mismatches, errors;
static bool draining; /* the streams are ended: only the server's end is still to come */

/* The phase that runs: its limits, and how far it is. A phase ends when nothing is outstanding. */
static struct {
    uint64_t requests; /* 0: no limit */
    uint64_t until;    /* no message is issued later; 0: no limit */
    uint64_t issued, completed, outstanding;
} run;

static void die(const char *what, int error)
{
    fprintf(stderr, "load: %s: %s\n", what, strerror(error));
    exit(EXIT_FAILURE);
}

static void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count, size);

    if (memory == NULL)
        die("calloc", errno);
    return memory;
}

static uint64_t now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t nanoseconds(double seconds)
{
    return (uint64_t)(seconds * 1e9);
}

/* The milliseconds until then, rounded up, as poll() and epoll_wait() want them; 0 when it has passed. */
static int milliseconds_until(uint64_t deadline)
{
    uint64_t t = now();

    return t >= deadline ? 0 : (int)((deadline - t + 999999) / 1000000);
}

/* ---- latencies ---- */

static unsigned bucket_of(uint64_t ns)
{
    unsigned shift;

    if (ns < 2u << SUB_BITS)
        return (unsigned)ns;
    shift = 63u - SUB_BITS - (unsigned)__builtin_clzll(ns);
    return (shift << SUB_BITS) + (unsigned)(ns >> shift);
}

static uint64_t largest_in(unsigned bucket)
{
    unsigned shift = bucket >> SUB_BITS;

    if (shift < 2)
        return bucket;
    shift--;
    return ((uint64_t)(bucket - (shift << SUB_BITS) + 1) << shift) - 1;
}

/* In microseconds; 0 when nothing was measured. */
static double percentile(double share)
{
    uint64_t seen = 0;

    for (unsigned i = 0; i < BUCKETS; i++) {
        seen += histogram[i];
        if (seen > 0 && (double)seen >= share * (double)run.completed)
            return (double)largest_in(i) / 1e3;
    }
    return 0;
}

/* ---- streams ---- */

static void make_pattern(void)
{
    uint64_t x = 0x9e3779b97f4a7c15u;

    for (size_t i = 0; i < PERIOD; i++) { /* xorshift: the same bytes in every run */
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        pattern[i] = (unsigned char)(x >> 32);
    }
    for (size_t i = PERIOD; i < sizeof pattern; i++)
        pattern[i] = pattern[i - PERIOD]; /* any CHUNK bytes of a stream lie in one piece */
}

static const unsigned char *stream_at(const struct connection *c, uint64_t position)
{
    return pattern + (c->phase + position) % PERIOD;
}

static uint64_t outstanding(const struct connection *c)
{
    return c->allowed / options.size - c->received / options.size;
}

static void watch(struct connection *c, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = c};

    if (epoll_ctl(epoll, operation, c->fd, &event) != 0)
        die("epoll_ctl", errno);
}

static void finish(struct connection *c)
{
    close(c->fd);
    c->fd = -1;
    run.outstanding -= draining ? 1 : outstanding(c);
}

static void lose(struct connection *c, const char *why)
{
    if (errors++ == 0) /* the first says enough; thousands would bury it */
        fprintf(stderr, "load: a connection is lost: %s\n", why);
    finish(c);
}

static void block(struct connection *c, bool blocked)
{
    if (c->blocked != blocked)
        watch(c, EPOLL_CTL_MOD, blocked ? EPOLLIN | EPOLLOUT : EPOLLIN);
    c->blocked = blocked;
}

static void send_allowed(struct connection *c)
{
    while (c->sent < c->allowed) {
        uint64_t left = c->allowed - c->sent;
        ssize_t sent = send(c->fd, stream_at(c, c->sent), left < CHUNK ? left : CHUNK, MSG_NOSIGNAL);

        if (sent < 0 && errno == EAGAIN) {
            block(c, true);
            return;
        }
        if (sent < 0) {
            lose(c, strerror(errno));
            return;
        }
        c->sent += (uint64_t)sent;
    }
    block(c, false);
}

static bool may_issue(uint64_t t)
{
    return (run.requests == 0 || run.issued < run.requests) && (run.until == 0 || t < run.until);
}

static void issue(struct connection *c, uint64_t count, uint64_t t)
{
    for (; count > 0 && may_issue(t); count--) {
        c->issued_at[c->allowed / options.size % options.pipeline] = t;
        c->allowed += options.size;
        run.issued++;
        run.outstanding++;
    }
    send_allowed(c);
}

static void count_faulty_messages(struct connection *c, const unsigned char *data, size_t length)
{
    const unsigned char *expected = stream_at(c, c->received);

    for (size_t i = 0; i < length; i++) {
        uint64_t message = (c->received + i) / options.size;

        if (data[i] != expected[i] && c->faulty != message + 1) {
            c->faulty = message + 1;
            mismatches++;
        }
    }
}

static void complete(struct connection *c, size_t length, uint64_t t)
{
    uint64_t first = c->received / options.size, end = (c->received + length) / options.size;

    for (uint64_t message = first; message < end; message++)
        histogram[bucket_of(t - c->issued_at[message % options.pipeline])]++;
    c->received += length;
    run.completed += end - first;
    run.outstanding -= end - first;
    issue(c, end - first, t);
}

static void on_data(struct connection *c, const unsigned char *data, size_t length)
{
    if (length > c->sent - c->received) {
        mismatches++;
        lose(c, "more bytes came back than were sent");
        return;
    }
    if (memcmp(data, stream_at(c, c->received), length) != 0)
        count_faulty_messages(c, data, length);
    complete(c, length, now());
}

static void on_readable(struct connection *c)
{
    static unsigned char data[CHUNK];
    ssize_t length = recv(c->fd, data, sizeof data, 0);

    if (length > 0)
        on_data(c, data, (size_t)length);
    else if (length == 0 && draining)
        finish(c);
    else if (length == 0)
        lose(c, "the server closed it");
    else if (errno != EAGAIN)
        lose(c, strerror(errno));
}

static void on_event(struct connection *c, uint32_t events)
{
    if (events & EPOLLOUT)
        send_allowed(c);
    if (c->fd >= 0 && events & ~(uint32_t)EPOLLOUT)
        on_readable(c);
}

/* ---- phases ---- */

static void give_up(void)
{
    for (uint64_t i = 0; i < options.connections; i++)
        if (connections[i].fd >= 0 && (draining || outstanding(&connections[i]) > 0))
            lose(&connections[i], "no answer in time");
}

static void loop(uint64_t deadline)
{
    static struct epoll_event events[EVENTS];

    while (run.outstanding > 0) {
        int left = milliseconds_until(deadline), count;

        if (left == 0) {
            give_up();
            return;
        }
        count = epoll_wait(epoll, events, EVENTS, left);
        if (count < 0 && errno != EINTR)
            die("epoll_wait", errno);
        for (int i = 0; i < count; i++)
            on_event(events[i].data.ptr, events[i].events);
    }
}

/* Echoes until `requests` are done or `seconds` are over; returns the seconds that it took. */
static double echo(uint64_t pipeline, uint64_t requests, double seconds)
{
    uint64_t begin = now();

    memset(histogram, 0, sizeof histogram);
    memset(&run, 0, sizeof run);
    run.requests = requests;
    run.until = seconds > 0 ? begin + nanoseconds(seconds) : 0;
    for (uint64_t i = 0; i < options.connections; i++)
        if (connections[i].fd >= 0)
            issue(&connections[i], pipeline, now());
    loop(begin + nanoseconds(seconds + options.timeout));
    return (double)(now() - begin) / 1e9;
}

static void end_streams(void)
{
    draining = true;
    run.outstanding = 0;
    for (uint64_t i = 0; i < options.connections; i++) {
        if (connections[i].fd < 0)
            continue;
        run.outstanding++;
        if (shutdown(connections[i].fd, SHUT_WR) != 0)
            lose(&connections[i], strerror(errno));
    }
    loop(now() + nanoseconds(options.timeout));
}

/* ---- connections ---- */

static int connect_one(void)
{
    struct timeval limit = {.tv_sec = (time_t)options.timeout + 1};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        die("socket", errno);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit); /* bounds connect() too */
    if (connect(fd, (struct sockaddr *)&options.address, sizeof options.address) != 0)
        die("connect", errno == EINPROGRESS ? ETIMEDOUT : errno);
    if (fcntl(fd, F_SETFL, O_NONBLOCK) != 0)
        die("fcntl", errno);
    return fd;
}

static void connect_all(void)
{
    uint64_t deadline = now() + nanoseconds(options.timeout);

    for (uint64_t i = 0; i < options.connections; i++) {
        struct connection *c = &connections[i];

        if (now() > deadline)
            die("connect", ETIMEDOUT);
        c->fd = connect_one();
        c->phase = i * 7919 % PERIOD;
        c->issued_at = allocate(options.pipeline, sizeof *c->issued_at);
        watch(c, EPOLL_CTL_ADD, EPOLLIN);
    }
}

static void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* ---- the gate ---- */

static void wait_for_line(void)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    uint64_t deadline = now() + nanoseconds(options.timeout);
    char c = 0;

    while (c != '\n') {
        int left = milliseconds_until(deadline);

        if (left == 0 || poll(&input, 1, left) == 0)
            die("stdin", ETIMEDOUT);
        if (read(STDIN_FILENO, &c, 1) != 1)
            die("stdin", EPIPE); /* whoever started us is gone */
    }
}

static void gate(const char *state)
{
    if (!options.gated)
        return;
    puts(state);
    fflush(stdout);
    wait_for_line();
}

/* ---- arguments and report ---- */

static void usage(const char *problem)
{
    fprintf(stderr,
            "load: %s\n"
            "usage: load --port PORT (--requests COUNT | --seconds SECONDS) [--host ADDRESS] [--connections COUNT]\n"
            "            [--pipeline COUNT] [--size BYTES] [--timeout SECONDS] [--gated]\n",
            problem);
    exit(EXIT_USAGE);
}

static uint64_t whole(const char *text, uint64_t low, uint64_t high, const char *problem)
{
    char *end;
    long long value = strtoll(text, &end, 10);

    if (end == text || *end != '\0' || value < 0 || (uint64_t)value < low || (uint64_t)value > high)
        usage(problem);
    return (uint64_t)value;
}

static double duration(const char *text, const char *problem)
{
    char *end;
    double value = strtod(text, &end);

    if (end == text || *end != '\0' || !(value > 0 && value <= 3600))
        usage(problem);
    return value;
}

static void set_option(int name, const char *text)
{
    switch (name) {
    case 'h':
        if (inet_pton(AF_INET, text, &options.address.sin_addr) != 1)
            usage("--host is not an IPv4 address");
        break;
    case 'p':
        options.address.sin_port = htons((in_port_t)whole(text, 1, 65535, "--port is 1 to 65535"));
        break;
    case 'c':
        options.connections = whole(text, 1, 60000, "--connections is 1 to 60000");
        break;
    case 'l':
        options.pipeline = whole(text, 1, 65536, "--pipeline is 1 to 65536");
        break;
    case 's':
        options.size = whole(text, 1, 16 << 20, "--size is 1 to 16777216");
        break;
    case 'n':
        options.requests = whole(text, 1, 1000000000, "--requests is 1 to 1000000000");
        break;
    case 't':
        options.seconds = duration(text, "--seconds is more than 0, and at most 3600");
        break;
    case 'o':
        options.timeout = duration(text, "--timeout is more than 0, and at most 3600");
        break;
    case 'g':
        options.gated = true;
        break;
    default:
        usage("unknown or incomplete option");
    }
}

static void parse_arguments(int argc, char **argv)
{
    static const struct option known[] = {
        {"host", required_argument, NULL, 'h'},     {"port", required_argument, NULL, 'p'},
        {"connections", required_argument, NULL, 'c'}, {"pipeline", required_argument, NULL, 'l'},
        {"size", required_argument, NULL, 's'},     {"requests", required_argument, NULL, 'n'},
        {"seconds", required_argument, NULL, 't'},  {"timeout", required_argument, NULL, 'o'},
        {"gated", no_argument, NULL, 'g'},          {0}};

    options.address.sin_family = AF_INET;
    options.address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (int name; (name = getopt_long(argc, argv, "", known, NULL)) != -1;)
        set_option(name, optarg);
    if (optind != argc)
        usage("unexpected argument");
    if (options.address.sin_port == 0)
        usage("--port is missing");
    if ((options.requests == 0) == (options.seconds == 0))
        usage("one of --requests and --seconds, and only one, is needed");
}

static void report(uint64_t echoes, double seconds, const double latency[3])
{
    printf("{\"connections\": %" PRIu64 ", \"pipeline\": %" PRIu64 ", \"size\": %" PRIu64 ", \"echoes\": %" PRIu64
           ", \"bytes\": %" PRIu64 ", \"seconds\": %.6f, \"echoes_per_second\": %.0f, \"mismatches\": %" PRIu64
           ", \"errors\": %" PRIu64 ", \"latency_us\": {\"p50\": %.1f, \"p99\": %.1f, \"p999\": %.1f}}\n",
           options.connections, options.pipeline, options.size, echoes, echoes * options.size, seconds,
           (double)echoes / seconds, mismatches, errors, latency[0], latency[1], latency[2]);
}

int main(int argc, char **argv)
{
    double seconds, latency[3];
    uint64_t echoes;

    parse_arguments(argc, argv);
    make_pattern();
    raise_descriptor_limit();
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0)
        die("epoll_create1", errno);
    connections = allocate(options.connections, sizeof *connections);
    connect_all();
    echo(1, options.connections, 0);

    gate("ready");
    seconds = echo(options.pipeline, options.requests, options.seconds);
    echoes = run.completed;
    latency[0] = percentile(0.5);
    latency[1] = percentile(0.99);
    latency[2] = percentile(0.999);
    gate("done");

    end_streams();
    report(echoes, seconds, latency);
    return mismatches + errors == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
