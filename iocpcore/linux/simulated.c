/* The simulated kernel: completes what pends in any order, at once or later, in pieces or never; all from one seed.
 *
 * Ownership: while an operation pends the world remembers its bytes and those it is to send, and scribbles on what it
 * is to receive into; nothing of that may have changed when the packet is handed out. A connection is two rings of
 * bytes, kept until the world ends, so that people and late packets may refer to it.
 * Threads: none of its own. Time passes and things happen only in wait(), in sim_idle() and in the people's own calls.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend.h"

#define NEVER UINT64_MAX
#define MICROSECOND UINT64_C(1000)
#define MILLISECOND UINT64_C(1000000)
#define SECOND UINT64_C(1000000000)

enum {
    FIRST_DESCRIPTOR = 1 << 23, /* far above what a process can have */
    DESCRIPTORS = 512,
    CONNECTIONS = 512,
    OPERATIONS = 1024,
    PORTS = 8,
    REMEMBERED = 160, /* bytes of an operation, at most */
    CALLED_ROOM = 1024, /* bytes a connection that the core makes can carry, at least: the core sends what it likes */
    RESCRIBBLE = 8,     /* one in so many receives that were tried in vain is scribbled on again */
};

/* What a connection carries one way. */
struct ring {
    char *bytes;
    size_t room, first, count;
};

struct sim_connection {
    unsigned number;
    struct ring to_core, to_peer;
    const char *excuse;         /* why it may end early */
    unsigned core_finished : 1; /* the core sends no more */
    unsigned core_closed : 1;
    unsigned peer_finished : 1;
    unsigned peer_left : 1;
    unsigned reset : 1;
};

enum socket_kind { CLOSED, FRESH, LISTENING, CONNECTED };

struct sim_socket {
    enum socket_kind kind;
    int linger_zero;
    struct sim_connection *connection;
};

/* One that pends, or has ended and its packet is still to be handed out. */
struct operation {
    OVERLAPPED *overlapped;
    struct iocp_socket *socket; /* of socket.c */
    int fd;
    struct sim_connection *connection; /* NULL for an accept */
    uint64_t not_before;               /* until then neither progress nor its packet */
    size_t bytes;                      /* moved so far */
    int accepted;
    int status;
    unsigned ended : 1;
    unsigned cancelled : 1;
    unsigned char scribble; /* what the rest of a receive buffer is full of */
    uint64_t checksum;      /* of what is to be sent */
    _Alignas(OVERLAPPED) unsigned char remembered[REMEMBERED];
};

/* What the kernel of this seed is like. Each but the last six: one in so many, 0 is never. */
struct mood {
    uint64_t inline_ends; /* starts that are tried at once */
    uint64_t busy;        /* starts during which something else happens */
    uint64_t failed_starts;
    uint64_t errors; /* of connections */
    uint64_t accept_errors;
    uint64_t refusals; /* of associating and of connecting */
    uint64_t short_moves;
    uint64_t lost_cancels; /* cancelled operations that succeed all the same */
    uint64_t slow_cancels; /* ... that take longer to end than the core waits */
    uint64_t late_packets;
    uint64_t held_back; /* packets that a dequeue leaves for a later one */
    uint64_t lateness;      /* nanoseconds, at most */
    uint64_t steps;         /* things that happen during a dequeue, at most */
    uint64_t step_time;     /* nanoseconds, at most */
    uint64_t longest_piece; /* bytes of a short move, at most */
    uint64_t ring_least, ring_most;
};

struct sim_port {
    struct iocp_port *port;
    unsigned number;
    int asleep;
    uint64_t wakes_at;
};

struct world {
    uint64_t chance;
    uint64_t now;
    size_t operation_size;
    struct mood mood;
    struct sim_people people;
    struct sim_port ports[PORTS];
    unsigned port_count;
    struct sim_socket sockets[DESCRIPTORS];
    int closed[DESCRIPTORS]; /* numbers to give out, the last closed first */
    unsigned closed_count;
    struct sim_connection *connections[CONNECTIONS];
    unsigned connection_count;
    struct sim_connection *backlog[CONNECTIONS]; /* of the one listener */
    unsigned backlog_count;
    struct operation *operations[OPERATIONS];
    unsigned operation_count;
    int telling;
    char *story;
    size_t story_length, story_room;
    char violation[400]; /* empty: none */
    int crashed;
    sigjmp_buf way_out;
};

static struct world *world;

/* ---- chance ---- */

uint64_t sim_random(void) /* Steele, Lea and Flood's splitmix64 */
{
    uint64_t z = world->chance += UINT64_C(0x9E3779B97F4A7C15);

    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

uint64_t sim_below(uint64_t limit)
{
    return sim_random() % limit;
}

int sim_one_in(uint64_t n)
{
    return n != 0 && sim_below(n) == 0;
}

uint64_t sim_scale(uint64_t least, uint64_t most)
{
    unsigned low = 63 - (unsigned)__builtin_clzll(least | 1), high = 63 - (unsigned)__builtin_clzll(most | 1);
    uint64_t top = UINT64_C(2) << (low + sim_below(high - low + 1));
    uint64_t value = top / 2 + sim_below(top / 2);

    return value < least ? least : value > most ? most : value;
}

/* A frequency for half of the seeds, never for the others. */
static uint64_t sometimes(uint64_t least, uint64_t most)
{
    return sim_below(2) ? sim_scale(least, most) : 0;
}

/* Everything ends at once and in small pieces: a session could go on for ever, and must take turns. */
static void be_fluent(struct mood *mood)
{
    mood->inline_ends = 1;
    mood->busy = 1;
    mood->short_moves = 1;
    mood->longest_piece = 256;
    mood->ring_least = 8192;
    mood->ring_most = 65536;
}

static void choose_mood(struct mood *mood)
{
    mood->inline_ends = sometimes(1, 8);
    mood->busy = sometimes(1, 4);
    mood->failed_starts = sometimes(64, 1024);
    mood->errors = sometimes(64, 1024);
    mood->accept_errors = sometimes(2, 32);
    mood->refusals = sometimes(4, 64);
    mood->short_moves = sometimes(1, 8);
    mood->lost_cancels = sometimes(1, 8);
    mood->slow_cancels = sim_one_in(8) ? sim_scale(1, 8) : 0;
    mood->late_packets = sometimes(1, 16);
    mood->held_back = sometimes(1, 8);
    mood->lateness = sim_scale(10 * MICROSECOND, 500 * MILLISECOND);
    mood->steps = sim_scale(1, 32);
    mood->step_time = sim_scale(100, 100 * MICROSECOND);
    mood->longest_piece = sim_scale(256, 65536);
    mood->ring_least = sim_scale(1, 4096);
    mood->ring_most = sim_scale(mood->ring_least, 65536);
    if (sim_one_in(16))
        be_fluent(mood);
}

uint64_t sim_now(void)
{
    return world->now;
}

/* ---- the story and its end ---- */

static void story_append(const char *format, va_list values)
{
    enum { LINE = 512 };

    if (world->story_room - world->story_length < LINE) {
        size_t room = 2 * world->story_room + 65536;
        char *grown = realloc(world->story, room);

        if (grown == NULL)
            return;
        world->story = grown;
        world->story_room = room;
    }
    world->story_length += (size_t)vsnprintf(world->story + world->story_length, LINE, format, values);
}

static void story_format(const char *format, ...)
{
    va_list values;

    va_start(values, format);
    story_append(format, values);
    va_end(values);
}

void sim_tell(const char *format, ...)
{
    va_list values;

    if (!world->telling)
        return;
    story_format("%3u.%09u  ", (unsigned)(world->now / SECOND), (unsigned)(world->now % SECOND));
    va_start(values, format);
    story_append(format, values);
    va_end(values);
    story_format("\n");
}

const char *sim_story(void)
{
    return world->story != NULL ? world->story : "";
}

void sim_violation(const char *format, ...)
{
    va_list values;

    va_start(values, format);
    vsnprintf(world->violation, sizeof world->violation, format, values);
    va_end(values);
    sim_tell("VIOLATION: %s", world->violation);
    siglongjmp(world->way_out, 1);
}

const char *sim_violated(void)
{
    return world->violation[0] != '\0' ? world->violation : NULL;
}

int sim_crashed(void)
{
    return world->crashed;
}

static void on_crash(int number)
{
    world->crashed = 1;
    sim_violation("the core crashed: %s", number == SIGABRT ? "abort()" : number == SIGFPE ? "SIGFPE" : "SIGSEGV");
}

/* A sanitizer's own report of a crash says more. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { CATCHES = 0 };
#else
enum { CATCHES = 4 };
#endif

int sim_run(void (*body)(void *), void *context)
{
    static const int signals[4] = {SIGSEGV, SIGBUS, SIGFPE, SIGABRT};
    struct sigaction before[4], catching = {.sa_handler = on_crash};
    int violated;

    for (int i = 0; i < CATCHES; i++)
        sigaction(signals[i], &catching, &before[i]);
    violated = sigsetjmp(world->way_out, 1);
    if (!violated)
        body(context);
    for (int i = 0; i < CATCHES; i++)
        sigaction(signals[i], &before[i], NULL);
    return violated;
}

/* ---- rings ---- */

static void ring_open(struct ring *ring, size_t least)
{
    size_t room = sim_scale(world->mood.ring_least, world->mood.ring_most);

    ring->room = room > least ? room : least;
    ring->bytes = malloc(ring->room);
    if (ring->bytes == NULL)
        abort();
}

static size_t ring_put(struct ring *ring, const char *bytes, size_t count)
{
    size_t at = (ring->first + ring->count) % ring->room, left = ring->room - ring->count, behind;

    count = count < left ? count : left;
    behind = count < ring->room - at ? count : ring->room - at;
    memcpy(ring->bytes + at, bytes, behind);
    memcpy(ring->bytes, bytes + behind, count - behind);
    ring->count += count;
    return count;
}

static size_t ring_take(struct ring *ring, char *bytes, size_t count)
{
    size_t behind;

    count = count < ring->count ? count : ring->count;
    behind = count < ring->room - ring->first ? count : ring->room - ring->first;
    memcpy(bytes, ring->bytes + ring->first, behind);
    memcpy(bytes + behind, ring->bytes, count - behind);
    ring->first = (ring->first + count) % ring->room;
    ring->count -= count;
    return count;
}

/* ---- connections ---- */

static struct sim_connection *connection_new(size_t least_room)
{
    struct sim_connection *c = calloc(1, sizeof *c);

    if (c == NULL || world->connection_count == CONNECTIONS)
        abort();
    c->number = world->connection_count;
    ring_open(&c->to_core, least_room);
    ring_open(&c->to_peer, least_room);
    world->connections[world->connection_count++] = c;
    return c;
}

static void connection_free(struct sim_connection *c)
{
    free(c->to_core.bytes);
    free(c->to_peer.bytes);
    free(c);
}

/* What is on its way is lost, as it may be with a real reset. */
static void connection_reset(struct sim_connection *c)
{
    c->reset = 1;
    c->to_core.count = 0;
    c->to_peer.count = 0;
}

void sim_excuse(struct sim_connection *c, const char *why)
{
    if (c->excuse == NULL)
        c->excuse = why;
}

const char *sim_excused(const struct sim_connection *c)
{
    return c->excuse;
}

unsigned sim_number(const struct sim_connection *c)
{
    return c->number;
}

size_t sim_room(const struct sim_connection *c)
{
    size_t room = c->to_core.room < c->to_peer.room ? c->to_core.room : c->to_peer.room;

    return room < world->mood.longest_piece ? room : world->mood.longest_piece;
}

int sim_core_closed(const struct sim_connection *c)
{
    return c->core_closed;
}

/* ---- descriptors ---- */

static int descriptor_new(enum socket_kind kind)
{
    int i;

    if (world->closed_count == 0) {
        errno = EMFILE;
        return -1;
    }
    i = world->closed[--world->closed_count];
    world->sockets[i] = (struct sim_socket){.kind = kind};
    return FIRST_DESCRIPTOR + i;
}

/* NULL if it is not a number of ours; a violation if it is one that is not open. */
static struct sim_socket *descriptor(int fd, const char *call)
{
    struct sim_socket *s;

    if (world == NULL || (fd >= 0 && fd < FIRST_DESCRIPTOR))
        return NULL;
    if (fd < 0 || fd >= FIRST_DESCRIPTOR + DESCRIPTORS)
        sim_violation("%s of %d, which is no descriptor", call, fd);
    s = &world->sockets[fd - FIRST_DESCRIPTOR];
    if (s->kind == CLOSED)
        sim_violation("%s of descriptor %d, which is closed", call, fd - FIRST_DESCRIPTOR);
    return s;
}

int os_socket(int family, int type, int protocol)
{
    return world != NULL ? descriptor_new(FRESH) : socket(family, type, protocol);
}

int sim_listen(void)
{
    return descriptor_new(LISTENING);
}

struct sim_connection *sim_connection_of(int fd)
{
    int i = fd - FIRST_DESCRIPTOR;

    return i >= 0 && i < DESCRIPTORS ? world->sockets[i].connection : NULL;
}

unsigned sim_open_descriptors(void)
{
    return DESCRIPTORS - world->closed_count;
}

/* Closing with unread input destroys what was sent and not yet read by the peer. */
static void core_closes(struct sim_connection *c, int linger_zero)
{
    sim_tell("connection %u: the core closes%s", c->number,
             linger_zero ? " with a reset" : c->to_core.count > 0 ? " with unread input" : "");
    c->core_finished = 1;
    c->core_closed = 1;
    if (linger_zero || c->to_core.count > 0)
        connection_reset(c);
}

static void refuse_backlog(void)
{
    for (unsigned i = 0; i < world->backlog_count; i++) {
        sim_excuse(world->backlog[i], "the listener closed before it was accepted");
        world->backlog[i]->core_closed = 1;
        connection_reset(world->backlog[i]);
    }
    world->backlog_count = 0;
}

int os_close(int fd)
{
    struct sim_socket *s = descriptor(fd, "close");

    if (s == NULL)
        return close(fd);
    if (s->kind == LISTENING)
        refuse_backlog();
    if (s->connection != NULL)
        core_closes(s->connection, s->linger_zero);
    *s = (struct sim_socket){.kind = CLOSED};
    world->closed[world->closed_count++] = fd - FIRST_DESCRIPTOR;
    return 0;
}

int os_shutdown(int fd, int how)
{
    struct sim_socket *s = descriptor(fd, "shutdown");

    if (s == NULL)
        return shutdown(fd, how);
    if (s->connection == NULL || s->connection->reset) {
        errno = ENOTCONN;
        return -1;
    }
    sim_tell("connection %u: the core ends its side", s->connection->number);
    s->connection->core_finished = 1;
    return 0;
}

int os_setsockopt(int fd, int level, int name, const void *value, socklen_t length)
{
    struct sim_socket *s = descriptor(fd, "setsockopt");

    if (s == NULL)
        return setsockopt(fd, level, name, value, length);
    if (level == SOL_SOCKET && name == SO_LINGER)
        s->linger_zero = ((const struct linger *)value)->l_onoff && ((const struct linger *)value)->l_linger == 0;
    return 0;
}

/* ---- the other end ---- */

struct sim_connection *sim_connect(int listener)
{
    struct sim_connection *c;

    if (world->sockets[listener - FIRST_DESCRIPTOR].kind != LISTENING)
        return NULL;
    c = connection_new(1);
    world->backlog[world->backlog_count++] = c;
    sim_tell("connection %u: a peer connects", c->number);
    return c;
}

size_t sim_write(struct sim_connection *c, const void *bytes, size_t count)
{
    if (c->core_closed && !c->reset)
        connection_reset(c);
    if (c->reset)
        return 0;
    count = ring_put(&c->to_core, bytes, count);
    if (count > 0)
        sim_tell("connection %u: the peer sends %zu bytes", c->number, count);
    return count;
}

enum sim_read sim_read(struct sim_connection *c, void *bytes, size_t room, size_t *count)
{
    *count = ring_take(&c->to_peer, bytes, room);
    if (*count > 0) {
        sim_tell("connection %u: the peer reads %zu bytes", c->number, *count);
        return SIM_DATA;
    }
    return c->reset ? SIM_RESET : c->core_finished ? SIM_END : SIM_NOTHING;
}

void sim_finish(struct sim_connection *c)
{
    sim_tell("connection %u: the peer ends its side", c->number);
    c->peer_finished = 1;
}

void sim_leave(struct sim_connection *c)
{
    sim_tell("connection %u: the peer closes", c->number);
    c->peer_finished = 1;
    c->peer_left = 1;
    if (c->to_peer.count > 0)
        connection_reset(c);
}

void sim_reset(struct sim_connection *c)
{
    sim_tell("connection %u: the peer resets", c->number);
    c->peer_left = 1;
    connection_reset(c);
}

/* ---- the core's memory ---- */

static const char *kind_name(int kind)
{
    static const char *const names[] = {"nothing", "accept", "connect", "receive", "send"};

    return names[kind];
}

/* Of a violation or a line of the story. */
static const char *operation_name(const struct operation *o)
{
    static char name[64];
    int kind = ((const OVERLAPPED *)(const void *)o->remembered)->kind; /* its own may be overwritten */

    if (o->connection == NULL)
        return kind_name(kind);
    snprintf(name, sizeof name, "%s of connection %u", kind_name(kind), o->connection->number);
    return name;
}

static uint64_t checksum(OVERLAPPED *overlapped)
{
    const struct iovec *buffers = overlapped_buffers(overlapped);
    uint64_t sum = 0;

    for (unsigned i = 0; i < overlapped->buffers; i++) {
        const char *at = buffers[i].iov_base, *end = at + buffers[i].iov_len;
        uint64_t word;

        for (; end - at >= 8; at += 8) {
            memcpy(&word, at, 8);
            sum = (sum ^ word) * UINT64_C(0x9E3779B97F4A7C15) + (sum >> 29);
        }
        for (; at < end; at++)
            sum = (sum ^ (unsigned char)*at) * UINT64_C(0x9E3779B97F4A7C15) + (sum >> 29);
    }
    return sum;
}

static void scribble(struct operation *o)
{
    const struct iovec *buffer = overlapped_buffers(o->overlapped);

    o->scribble = (unsigned char)sim_random();
    if (buffer->iov_len > 0)
        memset(buffer->iov_base, o->scribble, buffer->iov_len);
}

/* Is what no byte was received into as the kernel left it? */
static int scribble_stands(const struct operation *o)
{
    const struct iovec *buffer = overlapped_buffers(o->overlapped);
    const unsigned char *rest = (const unsigned char *)buffer->iov_base + o->bytes;
    size_t left = buffer->iov_len - o->bytes;

    return left == 0 || (rest[0] == o->scribble && memcmp(rest, rest + 1, left - 1) == 0);
}

static int overlap(const struct iovec *a, const struct iovec *b)
{
    const char *first = a->iov_base, *second = b->iov_base;

    return first < second + b->iov_len && second < first + a->iov_len;
}

/* Two sends may share their bytes; nothing else may. */
static int shares_memory(OVERLAPPED *a, OVERLAPPED *b)
{
    if (a->kind != OVERLAPPED_RECEIVE && b->kind != OVERLAPPED_RECEIVE)
        return 0;
    for (unsigned i = 0; i < a->buffers; i++) {
        for (unsigned j = 0; j < b->buffers; j++) {
            if (overlap(&overlapped_buffers(a)[i], &overlapped_buffers(b)[j]))
                return 1;
        }
    }
    return 0;
}

static int has_buffers(const OVERLAPPED *overlapped)
{
    return overlapped->kind == OVERLAPPED_RECEIVE || overlapped->kind == OVERLAPPED_SEND;
}

static void check_operation(struct operation *o)
{
    if (memcmp(o->overlapped, o->remembered, world->operation_size) != 0)
        sim_violation("the operation itself changed while in flight: the %s", operation_name(o));
}

static void check_buffers(struct operation *o)
{
    if (o->overlapped->kind == OVERLAPPED_SEND && checksum(o->overlapped) != o->checksum)
        sim_violation("the bytes to be sent changed while in flight: the %s", operation_name(o));
    if (o->overlapped->kind == OVERLAPPED_RECEIVE && !scribble_stands(o))
        sim_violation("the receive buffer was written to while in flight: the %s", operation_name(o));
}

/* What the kernel is given must be free, and an OVERLAPPED zeroed. */
static void check_start(struct operation *fresh)
{
    OVERLAPPED *overlapped = fresh->overlapped;

    for (unsigned i = 0; i < world->operation_count; i++) {
        struct operation *o = world->operations[i];

        if (o->overlapped == overlapped)
            sim_violation("%s: started on the OVERLAPPED of one in flight", operation_name(o));
        check_operation(o);
        if (has_buffers(overlapped) && has_buffers(o->overlapped) && shares_memory(overlapped, o->overlapped))
            sim_violation("%s: its buffer was given to the kernel a second time", operation_name(o));
    }
    if (overlapped->InternalHigh != 0 || overlapped->next != NULL || overlapped->flags != 0 ||
        overlapped->accepted != 0)
        sim_violation("%s: started on an OVERLAPPED that was not zeroed", operation_name(fresh));
}

/* ---- progress: 1 if something happened ---- */

static int end(struct operation *o, int status)
{
    o->ended = 1;
    o->status = status;
    if (sim_one_in(world->mood.late_packets))
        o->not_before = world->now + sim_below(world->mood.lateness);
    return 1;
}

static int any_error(void)
{
    static const int errors[] = {ECONNRESET, ECONNABORTED, ETIMEDOUT, EHOSTUNREACH, ENETDOWN, ENOBUFS, ECANCELED};

    return errors[sim_below(sizeof errors / sizeof *errors)];
}

/* The connection is lost for no fault of either end. */
static int fail(struct operation *o)
{
    sim_excuse(o->connection, "the network failed");
    connection_reset(o->connection);
    return end(o, any_error());
}

static size_t piece(size_t most)
{
    uint64_t longest = world->mood.longest_piece;

    return sim_one_in(world->mood.short_moves) ? sim_scale(1, most < longest ? most : longest) : most;
}

static int try_accept(struct operation *o)
{
    static const int errors[] = {ECONNABORTED, EMFILE, ENOBUFS, ETIMEDOUT};
    struct sim_connection *c;
    unsigned chosen;
    int fd;

    if (world->backlog_count == 0)
        return 0;
    if (sim_one_in(world->mood.accept_errors))
        return end(o, errors[sim_below(sizeof errors / sizeof *errors)]);
    chosen = (unsigned)sim_below(world->backlog_count);
    c = world->backlog[chosen];
    if (c->reset && sim_below(2)) {
        c->core_closed = 1;
        world->backlog[chosen] = world->backlog[--world->backlog_count];
        return end(o, ECONNABORTED);
    }
    fd = descriptor_new(CONNECTED);
    if (fd < 0)
        return end(o, EMFILE);
    world->backlog[chosen] = world->backlog[--world->backlog_count];
    world->sockets[fd - FIRST_DESCRIPTOR].connection = c;
    o->accepted = fd;
    sim_tell("connection %u: accepted as descriptor %d", c->number, fd - FIRST_DESCRIPTOR);
    return end(o, 0);
}

static int try_connect(struct operation *o)
{
    struct sim_connection *c;

    if (sim_one_in(world->mood.refusals))
        return end(o, sim_below(2) ? ECONNREFUSED : ETIMEDOUT);
    c = connection_new(CALLED_ROOM);
    world->sockets[o->fd - FIRST_DESCRIPTOR].kind = CONNECTED;
    world->sockets[o->fd - FIRST_DESCRIPTOR].connection = c;
    sim_tell("connection %u: the core connects as descriptor %d", c->number, o->fd - FIRST_DESCRIPTOR);
    world->people.called(world->people.self, c);
    return end(o, 0);
}

/* A receive after a reset may look like an end: seen on wine. */
static int reset_status(void)
{
    return sim_one_in(4) ? 0 : ECONNRESET;
}

static int try_receive(struct operation *o)
{
    struct sim_connection *c = o->connection;
    const struct iovec *buffer = overlapped_buffers(o->overlapped);

    if (c->reset)
        return end(o, reset_status());
    if (c->to_core.count == 0)
        return c->peer_finished ? end(o, 0) : 0;
    if (sim_one_in(world->mood.errors))
        return fail(o);
    if (buffer->iov_len > 0)
        o->bytes = ring_take(&c->to_core, buffer->iov_base, piece(buffer->iov_len));
    return end(o, 0);
}

/* Some of what is left, from where it stopped. */
static size_t send_piece(struct operation *o, size_t most)
{
    const struct iovec *buffers = overlapped_buffers(o->overlapped);
    size_t before = o->bytes, moved = 0;

    for (unsigned i = 0; i < o->overlapped->buffers && moved < most; i++) {
        size_t here = buffers[i].iov_len, taken;

        if (before >= here) {
            before -= here;
            continue;
        }
        here = here - before < most - moved ? here - before : most - moved;
        taken = ring_put(&o->connection->to_peer, (char *)buffers[i].iov_base + before, here);
        moved += taken;
        if (taken < here)
            break;
        before = 0;
    }
    o->bytes += moved;
    return moved;
}

static int try_send(struct operation *o)
{
    struct sim_connection *c = o->connection;
    size_t length = overlapped_length(o->overlapped), moved;

    if (c->peer_left && !c->reset)
        connection_reset(c);
    if (c->reset || c->core_finished)
        return end(o, c->reset ? ECONNRESET : EPIPE);
    if (sim_one_in(world->mood.errors))
        return fail(o);
    moved = send_piece(o, piece(length - o->bytes));
    if (moved > 0 && o->bytes < length)
        sim_tell("connection %u: %zu of the %zu bytes in flight are sent", c->number, o->bytes, length);
    return o->bytes == length ? end(o, 0) : moved > 0;
}

static int try(struct operation *o)
{
    switch (o->overlapped->kind) {
    case OVERLAPPED_ACCEPT:
        return try_accept(o);
    case OVERLAPPED_CONNECT:
        return try_connect(o);
    case OVERLAPPED_RECEIVE:
        return try_receive(o);
    default:
        return try_send(o);
    }
}

/* Let the kernel go on with one operation. */
static int proceed(struct operation *o)
{
    if (o->ended || o->not_before > world->now)
        return 0;
    check_operation(o);
    if (o->cancelled && !sim_one_in(world->mood.lost_cancels))
        return end(o, ECANCELED);
    if (try(o))
        return 1;
    if (o->overlapped->kind == OVERLAPPED_RECEIVE && sim_one_in(RESCRIBBLE)) {
        check_buffers(o);
        scribble(o);
    }
    return 0;
}

static void step(void)
{
    world->now += sim_below(world->mood.step_time);
    if (world->operation_count == 0 || sim_below(2))
        world->people.act(world->people.self);
    else
        proceed(world->operations[sim_below(world->operation_count)]);
}

/* ---- the backend: starting ---- */

static const char *sim_missing(void)
{
    return world == NULL ? "no simulated world has begun" : NULL;
}

static int sim_open(struct iocp_port *port)
{
    struct sim_port *p = &world->ports[world->port_count];

    if (world->port_count == PORTS)
        return EMFILE;
    *p = (struct sim_port){.port = port, .number = world->port_count++};
    port->backend_data = p;
    return 0;
}

static void sim_close(struct iocp_port *port)
{
    struct sim_port *p = port->backend_data;

    p->port = NULL;
}

static int sim_own(struct iocp_port *port)
{
    (void)port;
    return 0;
}

static int sim_associate(struct iocp_socket *s)
{
    struct sim_connection *c = descriptor(s->fd, "associate")->connection;

    if (c == NULL || !sim_one_in(world->mood.refusals))
        return 0;
    sim_tell("connection %u: the port does not take it", c->number);
    sim_excuse(c, "the port did not take it");
    return ENOMEM;
}

static struct operation *operation_new(struct iocp_socket *s, OVERLAPPED *overlapped)
{
    struct operation *o = calloc(1, sizeof *o);

    if (o == NULL || world->operation_count == OPERATIONS)
        abort();
    o->overlapped = overlapped;
    o->socket = s;
    o->fd = s->fd;
    o->connection = descriptor(s->fd, kind_name(overlapped->kind))->connection;
    o->accepted = INVALID_SOCKET;
    memcpy(o->remembered, overlapped, world->operation_size);
    return o;
}

/* From here on the memory is the kernel's. */
static void hold(struct operation *o)
{
    o->socket->pending++;
    world->operations[world->operation_count++] = o;
    sim_tell("descriptor %d: %s pends", o->fd - FIRST_DESCRIPTOR, operation_name(o));
}

static int refuse_start(struct operation *o)
{
    static const int errors[] = {ENOBUFS, ECONNRESET, ENOMEM};
    int error = errors[sim_below(sizeof errors / sizeof *errors)];

    if (o->connection != NULL)
        sim_excuse(o->connection, "an operation could not be started");
    sim_tell("descriptor %d: %s fails to start: %s", o->fd - FIRST_DESCRIPTOR, operation_name(o), strerror(error));
    free(o);
    return error;
}

/* It has ended before its start returned: 0 or its error. */
static int end_inline(struct operation *o)
{
    int status = o->status;

    o->overlapped->InternalHigh = o->bytes;
    o->overlapped->accepted = o->accepted;
    sim_tell("descriptor %d: %s ends at once: %zu bytes, %s", o->fd - FIRST_DESCRIPTOR, operation_name(o), o->bytes,
             strerror(status));
    free(o);
    return status;
}

static int sim_start(struct iocp_socket *s, OVERLAPPED *overlapped)
{
    struct operation *o = operation_new(s, overlapped);

    check_start(o);
    if (sim_one_in(world->mood.failed_starts))
        return refuse_start(o);
    if (overlapped->kind == OVERLAPPED_SEND)
        o->checksum = checksum(overlapped);
    if (overlapped->kind == OVERLAPPED_RECEIVE)
        scribble(o);
    if (sim_one_in(world->mood.busy))
        step();
    if (sim_one_in(world->mood.inline_ends) && try(o) && o->ended)
        return end_inline(o);
    hold(o);
    return EINPROGRESS;
}

/* ---- the backend: cancelling ---- */

static void cancel(struct operation *o)
{
    if (o->ended || o->cancelled)
        return;
    sim_tell("descriptor %d: %s is cancelled", o->fd - FIRST_DESCRIPTOR, operation_name(o));
    o->cancelled = 1;
    if (sim_one_in(world->mood.slow_cancels))
        o->not_before = world->now + SECOND + sim_below(SECOND / 2);
}

static void sim_cancel(struct iocp_socket *s, OVERLAPPED *overlapped)
{
    for (unsigned i = 0; i < world->operation_count; i++) {
        struct operation *o = world->operations[i];

        if (o->socket == s && (overlapped == NULL || o->overlapped == overlapped))
            cancel(o);
    }
}

/* What pends will never do anything again but end, and soon; of a closed socket many a status was seen. */
static void sim_detach(struct iocp_socket *s)
{
    static const int statuses[] = {ECANCELED, ECANCELED, ECONNABORTED, ECONNRESET};

    for (unsigned i = 0; i < world->operation_count; i++) {
        struct operation *o = world->operations[i];

        if (o->socket != s || o->ended)
            continue;
        o->not_before = 0;
        end(o, statuses[sim_below(sizeof statuses / sizeof *statuses)]);
    }
}

/* ---- the backend: waiting ---- */

static void hand_out(unsigned index)
{
    struct operation *o = world->operations[index];
    struct sim_port *p = o->socket->port->backend_data;

    check_operation(o);
    check_buffers(o);
    world->operations[index] = world->operations[--world->operation_count];
    sim_tell("port %u: packet: %s, %zu bytes, %s", p->number, operation_name(o), o->bytes, strerror(o->status));
    o->socket->pending--;
    o->overlapped->accepted = o->accepted;
    port_complete(o->overlapped, o->status, o->bytes);
    free(o);
}

static int is_due(const struct operation *o, const struct iocp_port *port)
{
    return o->ended && o->socket->port == port && o->not_before <= world->now;
}

static void swap_with_random(unsigned i)
{
    unsigned j = i + (unsigned)sim_below(world->operation_count - i);
    struct operation *o = world->operations[j];

    world->operations[j] = world->operations[i];
    world->operations[i] = o;
}

/* Some of the packets that are due, in any order. */
static unsigned hand_out_some(struct iocp_port *port, int at_least_one)
{
    unsigned i = 0, count = 0;

    while (i < world->operation_count) {
        int must = at_least_one && count == 0;

        swap_with_random(i);
        if (is_due(world->operations[i], port) && (must || !sim_one_in(world->mood.held_back))) {
            hand_out(i);
            count++;
        } else {
            i++;
        }
    }
    return count;
}

/* There is but one thread, so a sleep cannot last: it is noted, the call ends as if by its timeout, and whoever gives
 * the turns does not call again before sim_runnable(). The call after it is the sleep's true end. */
static int sim_wait(struct iocp_port *port, int64_t nanoseconds)
{
    struct sim_port *p = port->backend_data;
    int slept = p->asleep && p->wakes_at <= world->now;
    int must = nanoseconds != 0 && port->posted_count == 0;

    p->asleep = 0;
    for (uint64_t steps = sim_below(world->mood.steps + 1); steps > 0; steps--)
        step();
    if (hand_out_some(port, must) > 0 || !must)
        return 0;
    p->asleep = !slept;
    p->wakes_at = nanoseconds < 0 ? NEVER : world->now + (uint64_t)nanoseconds;
    return WAIT_TIMEOUT;
}

static void sim_wake(struct iocp_port *port)
{
    (void)port; /* sim_runnable() looks at what was posted */
}

static uint64_t sim_port_now(struct iocp_port *port)
{
    (void)port;
    return world->now;
}

const struct iocp_backend simulated_backend = {
    .name = "simulated",
    .missing = sim_missing,
    .open = sim_open,
    .close = sim_close,
    .own = sim_own,
    .associate = sim_associate,
    .start = sim_start,
    .cancel = sim_cancel,
    .detach = sim_detach,
    .wait = sim_wait,
    .wake = sim_wake,
    .now = sim_port_now,
};

/* ---- the ports, for who gives them their turns ---- */

int sim_runnable(HANDLE handle)
{
    struct iocp_port *port = handle;
    struct sim_port *p = port->backend_data;

    if (!p->asleep || port->posted_count > 0 || p->wakes_at <= world->now)
        return 1;
    for (unsigned i = 0; i < world->operation_count; i++) {
        if (is_due(world->operations[i], port))
            return 1;
    }
    return 0;
}

unsigned sim_in_flight(HANDLE handle)
{
    struct iocp_port *port = handle;
    unsigned count = 0;

    for (unsigned i = 0; i < world->operation_count; i++)
        count += world->operations[i]->socket->port == port;
    for (OVERLAPPED *o = port->done.head; o != NULL; o = o->next)
        count++;
    return count;
}

OVERLAPPED *sim_operation(unsigned index)
{
    return index < world->operation_count ? world->operations[index]->overlapped : NULL;
}

static uint64_t next_moment(void)
{
    uint64_t next = world->people.next_at(world->people.self);

    for (unsigned i = 0; i < world->operation_count; i++) {
        if (world->operations[i]->not_before > world->now && world->operations[i]->not_before < next)
            next = world->operations[i]->not_before;
    }
    for (unsigned i = 0; i < world->port_count; i++) {
        const struct sim_port *p = &world->ports[i];

        if (p->port != NULL && p->asleep && p->wakes_at > world->now && p->wakes_at < next)
            next = p->wakes_at;
    }
    return next;
}

int sim_idle(void)
{
    uint64_t next;

    if (sim_below(2) && world->people.act(world->people.self))
        return 1;
    for (unsigned i = 0; i < world->operation_count; i++) {
        swap_with_random(i);
        if (proceed(world->operations[i]))
            return 1;
    }
    if (world->people.act(world->people.self))
        return 1;
    next = next_moment();
    if (next == NEVER)
        return 0;
    world->now = next;
    return 1;
}

/* ---- the world ---- */

void sim_begin(uint64_t seed, size_t operation_size, int telling)
{
    world = calloc(1, sizeof *world);
    if (world == NULL || operation_size > REMEMBERED)
        abort();
    world->chance = seed;
    world->now = SECOND; /* 0 has a meaning of its own in the core */
    world->operation_size = operation_size;
    world->telling = telling;
    while (world->closed_count < DESCRIPTORS) {
        world->closed[world->closed_count] = (int)(DESCRIPTORS - 1 - world->closed_count);
        world->closed_count++;
    }
    choose_mood(&world->mood);
}

void sim_settle(const struct sim_people *people)
{
    world->people = *people;
}

void sim_end(void)
{
    for (unsigned i = 0; i < world->connection_count; i++)
        connection_free(world->connections[i]);
    for (unsigned i = 0; i < world->operation_count; i++)
        free(world->operations[i]);
    free(world->story);
    free(world);
    world = NULL;
}
