/* The load generator: it checks every byte that returns, over many connections, in one of five modes.
 *
 * echo       closed loop: each connection keeps `pipeline` messages outstanding
 * paced      open loop: messages are due at a fixed rate, whatever the server does. Latency counts from the moment a
 *            message was due: a server that stalls is charged for all that had to wait
 * churn      a connection for each message: connect, echo, end, and the server's end awaited
 * broadcast  one connection sends, all must receive; then the next one sends
 * bulk       a request of 8 bytes is answered with `size` bytes, 64 KiB blocks of a known pattern
 *
 * Each connection sends its own stream of bytes; a stream is a fixed random pattern, entered at another place by each
 * connection, so a byte that is lost, doubled, changed, moved or sent to the wrong connection shows. One checked
 * message comes first on every connection: the timed part meets connections that the server has accepted and served.
 * Afterwards the load ends its streams and awaits the server's end, so that bytes too many show as well.
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
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EXIT_USAGE = 2 };
enum { EVENTS = 1024, CHUNK = 65536, PERIOD = 65521 /* a prime: no message size divides it */ };
enum { REQUEST = 8 }; /* bytes: a bulk answer's length, the most significant first */
enum mode { ECHO, PACED, CHURN, BROADCAST, BULK };
static const char *const modes[] = {"echo", "paced", "churn", "broadcast", "bulk", NULL};

static struct {
    struct sockaddr_in address;
    uint64_t connections, pipeline, size, requests;
    double timeout, rate;
    enum mode mode;
    bool gated;
} options = {.connections = 50, .pipeline = 1, .size = 14, .requests = 100000, .timeout = 60};

struct connection {
    int fd;
    uint64_t phase;                   /* where in the pattern its stream begins */
    uint64_t allowed, sent, received; /* positions in its stream; allowed: the end of the last message issued */
    uint64_t faulty;                  /* 1 + the number of the message last counted as a mismatch */
    uint64_t *issued_at;              /* when each outstanding message was issued: a ring */
    bool blocked;                     /* waits for EPOLLOUT */
    bool ending;                      /* of churn: its stream is ended, the server's end is still to come */
};

static int epoll;
static struct connection *connections;
static unsigned char pattern[PERIOD + CHUNK];
static unsigned char blocks[2 * CHUNK], request[REQUEST]; /* of bulk: any CHUNK bytes of an answer lie in one piece */
static uint64_t *latencies; /* ns of each answer, in the order of their coming */
static uint64_t mismatches, errors;
static bool draining; /* the streams are ended: only the server's end is still to come */

/* The phase that runs: its limits, and how far it is. A phase ends when nothing is outstanding, nor due later. */
static struct {
    uint64_t requests;
    uint64_t pipeline;
    uint64_t issued, completed, outstanding; /* completed: that many latencies are known */
    uint64_t begin;   /* of a paced phase: when the first message is due */
    double interval;  /* ns between two that are due; 0: this phase is not paced */
} run;

/* A broadcast message is all connections' stream. */
static struct {
    uint64_t end;      /* position where the last message ends */
    uint64_t missing;  /* connections that have not received it whole */
    uint64_t issued_at;
} broadcast;

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
    for (size_t i = 0; i < sizeof blocks; i++)
        blocks[i] = (unsigned char)(i * 7 + i % CHUNK / 256);
    for (size_t i = 0; i < REQUEST; i++)
        request[i] = (unsigned char)(options.size >> 8 * (REQUEST - 1 - i));
}

/* Bytes of a message as it is sent. */
static uint64_t sent_size(void)
{
    return options.mode == BULK ? REQUEST : options.size;
}

static uint64_t at_most(uint64_t value, uint64_t limit)
{
    return value < limit ? value : limit;
}

/* What is sent from that position on; in one piece up to *length, which is lessened to what is. */
static const unsigned char *outgoing(const struct connection *c, uint64_t position, uint64_t *length)
{
    if (options.mode == BULK) {
        *length = at_most(*length, REQUEST - position % REQUEST);
        return request + position % REQUEST;
    }
    *length = at_most(*length, CHUNK);
    return pattern + (c->phase + position) % PERIOD;
}

static const unsigned char *incoming(const struct connection *c, uint64_t position)
{
    return options.mode == BULK ? blocks + position % CHUNK : pattern + (c->phase + position) % PERIOD;
}

/* Bytes that may still come, for what has been sent. */
static uint64_t owed(const struct connection *c)
{
    if (options.mode == BROADCAST)
        return broadcast.end - c->received;
    if (options.mode == BULK)
        return c->sent / REQUEST * options.size - c->received;
    return c->sent - c->received;
}

static uint64_t outstanding(const struct connection *c)
{
    if (options.mode == CHURN)
        return 1;
    if (options.mode == BROADCAST)
        return broadcast.end > c->received;
    return c->allowed / sent_size() - c->received / options.size;
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
        uint64_t length = c->allowed - c->sent;
        const unsigned char *data = outgoing(c, c->sent, &length);
        ssize_t sent = send(c->fd, data, length, MSG_NOSIGNAL);

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

static bool may_issue(void)
{
    return run.issued < run.requests;
}

static void allow(struct connection *c)
{
    c->allowed += sent_size();
    run.issued++;
    run.outstanding++;
}

static void issue(struct connection *c, uint64_t count, uint64_t t)
{
    for (; count > 0 && may_issue(); count--) {
        c->issued_at[c->allowed / sent_size() % options.pipeline] = t;
        allow(c);
    }
    send_allowed(c);
}

static void complete_one(uint64_t latency)
{
    latencies[run.completed++] = latency;
}

/* ---- paced ---- */

static uint64_t due(uint64_t number)
{
    return run.begin + (uint64_t)((double)number * run.interval);
}

/* Message m of the connection is the phase's m-1st round of all connections: one came before the phase. */
static uint64_t due_of(const struct connection *c, uint64_t message)
{
    return due((message - 1) * options.connections + (uint64_t)(c - connections));
}

static void issue_due(void)
{
    for (uint64_t t = now(); may_issue() && due(run.issued) <= t;) {
        struct connection *c = &connections[run.issued % options.connections];

        allow(c);
        if (c->fd >= 0)
            send_allowed(c);
        else
            run.outstanding--; /* a lost one's: the run has failed, and is only brought to its end */
    }
}

static uint64_t issue_time(const struct connection *c, uint64_t message)
{
    return run.interval > 0 ? due_of(c, message) : c->issued_at[message % options.pipeline];
}

/* ---- broadcast ---- */

/* The last connection begins: once the server has its message, it has accepted all before it. */
static void issue_broadcast(uint64_t t)
{
    struct connection *c = &connections[options.connections - 1 - run.issued % options.connections];

    if (!may_issue() || errors > 0)
        return;
    c->sent = c->allowed = broadcast.end;
    broadcast.end += options.size;
    broadcast.missing = options.connections;
    broadcast.issued_at = t;
    run.issued++;
    run.outstanding += options.connections;
    c->allowed += options.size;
    send_allowed(c);
}

static void complete_broadcast(struct connection *c, size_t length, uint64_t t)
{
    c->received += length;
    if (c->received < broadcast.end)
        return;
    complete_one(t - broadcast.issued_at);
    run.outstanding--;
    if (--broadcast.missing == 0)
        issue_broadcast(t);
}

/* ---- churn ---- */

static int connect_one(int flags);

static void open_next(struct connection *c)
{
    if (!may_issue())
        return;
    c->allowed = c->sent = c->received = 0;
    c->ending = c->blocked = false;
    c->fd = connect_one(SOCK_NONBLOCK);
    c->issued_at[0] = now();
    allow(c);
    watch(c, EPOLL_CTL_ADD, EPOLLIN | EPOLLOUT);
    c->blocked = true; /* until it is connected */
}

static void end_one(struct connection *c, size_t length)
{
    c->received += length;
    if (c->received < options.size)
        return;
    c->ending = true;
    if (shutdown(c->fd, SHUT_WR) != 0)
        lose(c, strerror(errno));
}

static void ended(struct connection *c)
{
    complete_one(now() - c->issued_at[0]);
    finish(c);
    open_next(c);
}

/* ---- what comes back ---- */

static void count_faulty_messages(struct connection *c, const unsigned char *data, size_t length)
{
    const unsigned char *expected = incoming(c, c->received);

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
        complete_one(t - issue_time(c, message));
    c->received += length;
    run.outstanding -= end - first;
    if (run.interval == 0)
        issue(c, end - first, t);
}

static void on_data(struct connection *c, const unsigned char *data, size_t length)
{
    if (length > owed(c)) {
        mismatches++;
        lose(c, "more bytes came back than were sent");
        return;
    }
    if (memcmp(data, incoming(c, c->received), length) != 0)
        count_faulty_messages(c, data, length);
    if (options.mode == CHURN)
        end_one(c, length);
    else if (options.mode == BROADCAST)
        complete_broadcast(c, length, now());
    else
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
    else if (length == 0 && c->ending)
        ended(c);
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

/* Until the deadline, or until the next message is due. */
static int wait_for_events(struct epoll_event *events, uint64_t deadline)
{
    uint64_t t = now(), until = deadline, left;

    if (run.interval > 0 && may_issue() && due(run.issued) < until)
        until = due(run.issued);
    left = until > t ? until - t : 0;
    return epoll_pwait2(epoll, events, EVENTS,
                        &(struct timespec){(time_t)(left / 1000000000), (long)(left % 1000000000)}, NULL);
}

static void loop(uint64_t deadline)
{
    static struct epoll_event events[EVENTS];

    while (run.outstanding > 0 || (run.interval > 0 && may_issue())) {
        int count;

        if (now() >= deadline) {
            give_up();
            return;
        }
        count = wait_for_events(events, deadline);
        if (count < 0 && errno != EINTR)
            die("epoll_pwait2", errno);
        for (int i = 0; i < count; i++)
            on_event(events[i].data.ptr, events[i].events);
        if (run.interval > 0)
            issue_due();
    }
}

static void begin(uint64_t pipeline, uint64_t requests)
{
    memset(&run, 0, sizeof run);
    run.begin = now();
    run.pipeline = pipeline;
    run.requests = requests;
}

static void issue_first(void)
{
    if (options.mode == BROADCAST) {
        issue_broadcast(now());
        return;
    }
    for (uint64_t i = 0; i < options.connections; i++) {
        if (connections[i].fd >= 0)
            issue(&connections[i], run.pipeline, now());
        else if (options.mode == CHURN)
            open_next(&connections[i]);
    }
}

/* One message on every connection. */
static void greet(void)
{
    if (options.mode == CHURN)
        return;
    begin(1, options.mode == BROADCAST ? 1 : options.connections);
    issue_first();
    loop(now() + nanoseconds(options.timeout));
}

/* Until `requests` are done; returns the seconds that it took. */
static double timed_part(void)
{
    begin(options.pipeline, options.requests);
    if (options.mode == PACED)
        run.interval = 1e9 / options.rate;
    else
        issue_first();
    loop(run.begin + nanoseconds(options.timeout) + (uint64_t)(run.interval * (double)run.requests));
    return (double)(now() - run.begin) / 1e9;
}

static void end_streams(void)
{
    draining = true;
    run.outstanding = 0;
    run.interval = 0;
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

/* flags: SOCK_NONBLOCK, to be connected later, or 0. */
static int connect_one(int flags)
{
    struct timeval limit = {.tv_sec = (time_t)options.timeout + 1};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);

    if (fd < 0)
        die("socket", errno);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit); /* bounds connect() too */
    if (connect(fd, (struct sockaddr *)&options.address, sizeof options.address) != 0 &&
        !(flags == SOCK_NONBLOCK && errno == EINPROGRESS))
        die("connect", errno == EINPROGRESS ? ETIMEDOUT : errno);
    if (fcntl(fd, F_SETFL, O_NONBLOCK) != 0)
        die("fcntl", errno);
    return fd;
}

/* Of the larger phase, and in a broadcast of each delivery. */
static void allocate_latencies(void)
{
    uint64_t most = options.requests > options.connections ? options.requests : options.connections;

    latencies = allocate(options.mode == BROADCAST ? most * options.connections : most, sizeof *latencies);
}

static void connect_all(void)
{
    uint64_t deadline = now() + nanoseconds(options.timeout);

    for (uint64_t i = 0; i < options.connections; i++) {
        struct connection *c = &connections[i];

        c->phase = options.mode == BROADCAST ? 0 : i * 7919 % PERIOD;
        c->issued_at = allocate(options.pipeline, sizeof *c->issued_at);
        c->fd = -1;
        if (options.mode == CHURN)
            continue;
        if (now() > deadline)
            die("connect", ETIMEDOUT);
        c->fd = connect_one(0);
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
            "usage: load --port PORT [--requests COUNT] [--connections COUNT] [--pipeline COUNT] [--size BYTES]\n"
            "            [--mode echo|paced|churn|broadcast|bulk] [--rate PER_SECOND] [--timeout SECONDS] [--gated]\n",
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

static double positive(const char *text, double high, const char *problem)
{
    char *end;
    double value = strtod(text, &end);

    if (end == text || *end != '\0' || !(value > 0 && value <= high))
        usage(problem);
    return value;
}

static enum mode mode_named(const char *text)
{
    for (unsigned i = 0; modes[i] != NULL; i++)
        if (strcmp(modes[i], text) == 0)
            return i;
    usage("--mode is echo, paced, churn, broadcast or bulk");
    return ECHO;
}

static void set_option(int name, const char *text)
{
    switch (name) {
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
        options.size = whole(text, 1, 1 << 30, "--size is 1 to 1073741824");
        break;
    case 'n':
        options.requests = whole(text, 1, 100000000, "--requests is 1 to 100000000");
        break;
    case 'o':
        options.timeout = positive(text, 3600, "--timeout is more than 0, and at most 3600");
        break;
    case 'm':
        options.mode = mode_named(text);
        break;
    case 'r':
        options.rate = positive(text, 1e7, "--rate is more than 0, and at most 10 million");
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
        {"port", required_argument, NULL, 'p'},     {"connections", required_argument, NULL, 'c'},
        {"pipeline", required_argument, NULL, 'l'}, {"size", required_argument, NULL, 's'},
        {"requests", required_argument, NULL, 'n'}, {"timeout", required_argument, NULL, 'o'},
        {"mode", required_argument, NULL, 'm'},     {"rate", required_argument, NULL, 'r'},
        {"gated", no_argument, NULL, 'g'},          {0}};

    options.address.sin_family = AF_INET;
    options.address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (int name; (name = getopt_long(argc, argv, "", known, NULL)) != -1;)
        set_option(name, optarg);
    if (optind != argc)
        usage("unexpected argument");
    if (options.address.sin_port == 0)
        usage("--port is missing");
    if ((options.mode == PACED) != (options.rate > 0))
        usage("--rate and --mode paced belong together");
    if (options.mode == BULK && options.size % CHUNK != 0)
        usage("--size of a bulk answer is a multiple of 65536");
    if ((options.mode == CHURN || options.mode == BROADCAST) && options.pipeline != 1)
        usage("--pipeline is 1 in this mode");
}

static int by_size(const void *one, const void *other)
{
    uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)other;

    return (a > b) - (a < b);
}

/* Of the latencies, sorted; in microseconds, 0 when nothing was measured. */
static double percentile(double share, uint64_t count)
{
    return count == 0 ? 0 : (double)latencies[(uint64_t)(share * (double)(count - 1) + 0.5)] / 1e3;
}

static void report(uint64_t requests, double seconds)
{
    printf("{\"requests\": %" PRIu64 ", \"requests_per_s\": %.1f", requests, (double)requests / seconds);
    printf(", \"p50_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f}\n", percentile(0.5, requests),
           percentile(0.99, requests), percentile(0.999, requests));
    if (mismatches + errors > 0)
        fprintf(stderr, "load: %" PRIu64 " messages were wrong, %" PRIu64 " connections lost\n", mismatches, errors);
}

int main(int argc, char **argv)
{
    double seconds;
    uint64_t requests;

    parse_arguments(argc, argv);
    make_pattern();
    raise_descriptor_limit();
    prctl(PR_SET_TIMERSLACK, 1); /* a paced message is sent when it is due, not 50 us later */
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0)
        die("epoll_create1", errno);
    connections = allocate(options.connections, sizeof *connections);
    allocate_latencies();
    connect_all();
    greet();

    gate("ready");
    seconds = timed_part();
    requests = run.completed;
    gate("done");

    end_streams();
    qsort(latencies, requests, sizeof *latencies, by_size);
    report(requests, seconds);
    return mismatches + errors == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
