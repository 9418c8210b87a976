/* The simulated kernel: completes operations in any order, at once or later, in pieces or never; all from one seed.
 *
 * Ownership: while an operation pends the world remembers its bytes, has a checksum of those it is to send, and
 * scribbles on its receive buffers; nothing of that may have changed when the packet is handed out. A connection is two
 * rings of bytes, kept until the world ends, so that people and late packets may refer to it.
 * Threads: none of its own. Time passes and things happen only in the core's calls and in sim_idle().
 */
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "records.h"
#include "simulated.h"

#include "backend.h"

#define NEVER UINT64_MAX
#define MICROSECOND UINT64_C(1000)
#define MILLISECOND UINT64_C(1000000)
#define SECOND UINT64_C(1000000000)

enum {
    FIRST_DESCRIPTOR = 1 << 23, /* far above the descriptors that a process can have */
    DESCRIPTORS = 512,
    CONNECTIONS = 512,
    OPERATIONS = 1024,
    PORTS = 8,
    GATHERED = 16,    /* buffers of an operation, at most */
    REMEMBERED = 160, /* bytes of an operation, at most */
    CALLED_ROOM = 1024, /* bytes that a connection made by the core can carry, at least */
    FEW_DESCRIPTORS = 4, /* where descriptors are few: that many, and 1 to 12 for connections */
    RESCRIBBLE = 8,     /* a receive tried in vain is scribbled on again one time in so many */
};

/* The bytes that a connection carries in one direction. */
struct ring {
    char *bytes;
    size_t room, first, count;
};

struct sim_connection {
    unsigned number;
    struct ring to_core, to_peer;
    uint64_t taken;             /* how many of the user's bytes the core has sent */
    struct records records;     /* ... as these records, if the world is layered */
    uint64_t arrived_at;        /* if something can be received: since when */
    const char *excuse;         /* why it may end early */
    int listener;               /* it is, or was, in this listener's backlog */
    unsigned core_finished : 1; /* the core sends no more */
    unsigned core_closed : 1;
    unsigned peer_finished : 1;
    unsigned peer_left : 1;
    unsigned reset : 1;
    unsigned deaf : 1; /* as on Windows, a cancelled receive was its last: it receives nothing more */
    unsigned told : 1; /* the last receive was of zero bytes: the core knows of data */
};

enum socket_kind { CLOSED, FRESH, LISTENING, CONNECTED };

struct sim_socket {
    enum socket_kind kind;
    int linger_zero;
    int updated; /* it has the context that shutdown() needs on Windows */
    int deaf;    /* a listener: shut down */
    int armed;   /* ... an accept was posted, or has taken a connection */
    int starved; /* ... a waiting connection once got no descriptor */
    struct sim_connection *connection;
};

/* An operation that pends, or whose packet is still to be handed out. */
struct operation {
    OVERLAPPED *overlapped;
    struct iocp_socket *socket; /* of socket.c */
    int fd;
    struct sim_connection *connection; /* NULL for an accept */
    uint64_t not_before;               /* until then it neither goes on nor gives its packet */
    size_t bytes;                      /* moved so far */
    int accepted;
    int status;
    unsigned ended : 1;
    unsigned cancelled : 1;
    unsigned queued : 1;    /* an inline success: its packet waits in the port */
    uint64_t ended_at;
    unsigned char scribble; /* the byte that fills the rest of its receive buffers */
    uint64_t checksum;      /* of the bytes to be sent */
    unsigned buffer_count;
    struct iovec buffers[GATHERED];
    _Alignas(OVERLAPPED) unsigned char remembered[REMEMBERED];
};

/* The character of this seed's kernel. */
struct mood {
    uint64_t one_in[SIM_WHIMS]; /* each whim comes one time in so many; 0: never */
    uint64_t lateness;          /* nanoseconds, at most */
    uint64_t steps;             /* things that happen during a dequeue, at most */
    uint64_t step_time;         /* nanoseconds, at most */
    uint64_t longest_piece;     /* bytes of a short move, at most */
    uint64_t ring_least, ring_most;
    unsigned descriptors; /* that can be open at a time */
};

struct sim_port {
    struct iocp_port *port;
    unsigned number;
    int asleep;
    uint64_t wakes_at;
    unsigned failed_dequeues;
};

struct world {
    struct sim_limits limits;
    uint64_t chance;
    uint64_t now;
    size_t operation_size;
    struct mood mood;
    struct sim_people people;
    struct sim_port ports[PORTS];
    unsigned port_count;
    struct sim_socket sockets[DESCRIPTORS];
    int closed[DESCRIPTORS]; /* free numbers: the last closed is given out first */
    unsigned closed_count;
    struct sim_connection *connections[CONNECTIONS];
    unsigned connection_count;
    struct sim_connection *backlog[CONNECTIONS]; /* of all listeners */
    unsigned backlog_count;
    struct operation *operations[OPERATIONS];
    unsigned operation_count;
    int scarce; /* memory may be short now */
    uint64_t seed;
    int layered;
    unsigned unread_closes; /* closes by the core that were not meant as resets */
    int telling;
    char *story;
    size_t story_length, story_room;
    char violation[400]; /* empty: none */
    int crashed;
    sigjmp_buf way_out;
};

static struct world *world;

unsigned sim_mutant;

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

/* ---- the mood ---- */

struct habit {
    const char *name;
    unsigned worlds;      /* one in so many has it */
    uint64_t least, most; /* ... in which it comes one time in so many */
};

static const struct habit habits[SIM_WHIMS] = {
    [SIM_INLINE_ENDS] = {"ends at once", 2, 1, 8},
    [SIM_BUSY] = {"much happens during a start", 2, 1, 4},
    [SIM_FAILED_STARTS] = {"failed starts", 2, 64, 1024},
    [SIM_ERRORS] = {"connections that fail", 2, 64, 1024},
    [SIM_ACCEPT_ERRORS] = {"accepts that fail", 2, 2, 32},
    [SIM_REFUSALS] = {"refused associations and connects", 2, 4, 64},
    [SIM_SHORT_MOVES] = {"short counts", 2, 1, 8},
    [SIM_SHORT_SENDS] = {"sends that end before all is sent", 4, 2, 64},
    [SIM_LOST_CANCELS] = {"cancels that come too late", 2, 1, 8},
    [SIM_SLOW_CANCELS] = {"cancelled operations that take long to end", 8, 1, 8},
    [SIM_SLOW_DRAINS] = {"operations of closed sockets that take long to end", 8, 1, 8},
    [SIM_LATE_PACKETS] = {"late packets", 2, 1, 16},
    [SIM_HELD_BACK] = {"packets held back", 2, 1, 8},
    [SIM_FAILED_DEQUEUES] = {"dequeues that fail", 4, 4, 256},
    [SIM_TIMEOUT_SAYS_ONE] = {"timeouts that count a packet", 2, 1, 1},
    [SIM_SCARCE_MEMORY] = {"allocations and posts that fail", 6, 4, 256},
    [SIM_FEW_DESCRIPTORS] = {"few descriptors", 12, 1, 1},
    [SIM_AS_WINDOWS] = {"the ways of Windows", 3, 1, 1},
    [SIM_FAILED_UPDATES] = {"contexts that cannot be updated", 4, 8, 64},
};

const char *sim_whim_name(int whim)
{
    return whim < SIM_WHIMS ? habits[whim].name : NULL;
}

static int comes(enum sim_whim whim)
{
    return sim_one_in(world->mood.one_in[whim]);
}

/* Everything ends at once and in small pieces, so that a session could go on for ever: it must take turns. */
static void be_fluent(struct mood *mood)
{
    mood->one_in[SIM_INLINE_ENDS] = 1;
    mood->one_in[SIM_BUSY] = 1;
    mood->one_in[SIM_SHORT_MOVES] = 1;
    mood->longest_piece = 256;
    mood->ring_least = 8192;
    mood->ring_most = 65536;
}

static void calm_down(struct mood *mood)
{
    for (int i = 0; i < SIM_WHIMS; i++) {
        if (world->limits.calm >> i & 1)
            mood->one_in[i] = 0;
    }
}

int sim_as_windows(void)
{
    return world->mood.one_in[SIM_AS_WINDOWS] != 0;
}

static void choose_mood(struct mood *mood)
{
    for (int i = 0; i < SIM_WHIMS; i++)
        mood->one_in[i] = sim_one_in(habits[i].worlds) ? sim_scale(habits[i].least, habits[i].most) : 0;
    mood->lateness = sim_scale(10 * MICROSECOND, 500 * MILLISECOND);
    mood->steps = sim_scale(1, 32);
    mood->step_time = sim_scale(100, 100 * MICROSECOND);
    mood->longest_piece = sim_scale(256, 65536);
    mood->ring_least = sim_scale(1, 4096);
    mood->ring_most = sim_scale(mood->ring_least, 65536);
    if (sim_one_in(16))
        be_fluent(mood);
    mood->descriptors = FEW_DESCRIPTORS + (unsigned)sim_scale(1, 12);
    calm_down(mood);
    if (sim_as_windows())
        mood->one_in[SIM_SHORT_SENDS] = 0; /* a send ends when all of it is sent */
    else
        mood->one_in[SIM_FAILED_UPDATES] = 0;
    if (mood->one_in[SIM_FEW_DESCRIPTORS] == 0)
        mood->descriptors = DESCRIPTORS;
}

static void tell_mood(const struct mood *mood)
{
    for (int i = 0; i < SIM_WHIMS; i++) {
        if (mood->one_in[i] != 0)
            sim_tell("this kernel knows %s: one in %lu", habits[i].name, (unsigned long)mood->one_in[i]);
    }
}

int sim_few_descriptors(void)
{
    return world->mood.descriptors < DESCRIPTORS;
}

const struct sim_limits *sim_limits(void)
{
    return &world->limits;
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
    sim_violation("the core crashed: %s", number == SIGFPE ? "SIGFPE" : "SIGSEGV");
}

/* A loop without end (SIGVTALRM), or a lock of malloc()'s that what crashed in it still holds (SIGABRT, SIGALRM): to go
 * on in this process is not safe.
 */
static void on_alarm(int number)
{
    dprintf(STDERR_FILENO, "signal %d in seed %llu: the process ends\n", number, (unsigned long long)world->seed);
    _exit(1);
}

/* With a sanitizer no signal is caught: its own report says more. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { CATCHES = 0 };
#else
enum { CATCHES = 3 };
#endif
enum { MOST_SECONDS = 100, MOST_CPU_SECONDS = 5 }; /* for one schedule; most take about a millisecond */

int sim_run(void (*body)(void *), void *context)
{
    static const int signals[3] = {SIGSEGV, SIGBUS, SIGFPE};
    struct sigaction before[3], catching = {.sa_handler = on_crash};
    int violated;

    signal(SIGABRT, on_alarm);
    signal(SIGALRM, on_alarm);
    signal(SIGVTALRM, on_alarm);
    alarm(MOST_SECONDS);
    setitimer(ITIMER_VIRTUAL, &(struct itimerval){.it_value.tv_sec = MOST_CPU_SECONDS}, NULL);

    for (int i = 0; i < CATCHES; i++)
        sigaction(signals[i], &catching, &before[i]);
    violated = sigsetjmp(world->way_out, 1);
    if (!violated)
        body(context);
    for (int i = 0; i < CATCHES; i++)
        sigaction(signals[i], &before[i], NULL);
    alarm(0);
    setitimer(ITIMER_VIRTUAL, &(struct itimerval){0}, NULL);
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

/* Can something be received: data, an end, a reset? */
static int has_arrived(const struct sim_connection *c)
{
    return c->reset || c->peer_finished || c->to_core.count > 0;
}

static void arrive(struct sim_connection *c)
{
    if (!has_arrived(c))
        c->arrived_at = world->now;
}

/* Bytes on their way are lost, as they may be with a real reset. */
static void connection_reset(struct sim_connection *c)
{
    arrive(c);
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

int sim_was_reset(const struct sim_connection *c)
{
    return c->reset;
}

uint64_t sim_taken(const struct sim_connection *c)
{
    return c->taken;
}

int sim_layered(void)
{
    return world->layered;
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

/* NULL if the number is not simulated; a violation if it is, but is not open. */
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
    return world->mood.descriptors - world->closed_count;
}

/* Closing with unread input destroys bytes that were sent and that the peer has not read yet. */
static void core_closes(struct sim_connection *c, int linger_zero)
{
    int destroys = c->to_core.count > 0;

    sim_tell("connection %u: the core closes%s", c->number,
             linger_zero ? " with a reset" : destroys ? " with unread input" : "");
    world->unread_closes += destroys && !linger_zero;
    c->core_finished = 1;
    c->core_closed = 1;
    if (linger_zero || destroys)
        connection_reset(c);
}

static struct sim_connection *take_from_backlog(unsigned index)
{
    struct sim_connection *c = world->backlog[index];

    world->backlog[index] = world->backlog[--world->backlog_count];
    return c;
}

/* A listener must serve its backlog, even when it closes. Excused: one that never accepted, or lacked descriptors. */
static void refuse_backlog(int listener)
{
    const struct sim_socket *s = &world->sockets[listener - FIRST_DESCRIPTOR];
    unsigned i = 0;

    while (i < world->backlog_count) {
        if (world->backlog[i]->listener == listener) {
            struct sim_connection *c = take_from_backlog(i);

            if (!s->armed || s->starved)
                sim_excuse(c, "the listener closed before it was accepted");
            c->core_closed = 1;
            connection_reset(c);
        } else {
            i++;
        }
    }
}

int os_close(int fd)
{
    struct sim_socket *s = descriptor(fd, "close");

    if (s == NULL)
        return close(fd);
    if (s->kind == LISTENING)
        refuse_backlog(fd);
    if (s->connection != NULL)
        core_closes(s->connection, s->linger_zero);
    *s = (struct sim_socket){.kind = CLOSED};
    world->closed[world->closed_count++] = fd - FIRST_DESCRIPTOR;
    return 0;
}

unsigned sim_unread_closes(void)
{
    return world->unread_closes;
}

int os_shutdown(int fd, int how)
{
    struct sim_socket *s = descriptor(fd, "shutdown");

    if (s == NULL)
        return shutdown(fd, how);
    if (s->kind == LISTENING) {
        s->deaf = 1;
        refuse_backlog(fd);
        return 0;
    }
    if (sim_as_windows() && !s->updated)
        sim_violation("shutdown() of a socket whose context was not updated");
    if (s->connection == NULL || s->connection->reset) {
        errno = ENOTCONN;
        return -1;
    }
    sim_tell("connection %u: the core ends its side", s->connection->number);
    s->connection->core_finished = 1;
    return 0;
}

int os_update(int fd)
{
    struct sim_socket *s = descriptor(fd, "updating the context");

    if (s == NULL)
        return 0;
    if (comes(SIM_FAILED_UPDATES)) {
        sim_excuse(s->connection, "its context could not be updated");
        return ENOTCONN;
    }
    s->updated = 1;
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

/* An address of the simulated net. Its port is the connection's number. */
static int give_name(int fd, uint32_t host, struct sockaddr *name, socklen_t *length)
{
    struct sim_socket *s = descriptor(fd, "getsockname or getpeername");
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(host)}};

    if (s == NULL || s->connection == NULL || s->connection->reset) {
        errno = ENOTCONN;
        return -1;
    }
    at.sin_port = htons((uint16_t)s->connection->number);
    memcpy(name, &at, sizeof at);
    *length = sizeof at;
    return 0;
}

int os_getsockopt(int fd, int level, int name, void *value, socklen_t *length)
{
    (void)fd, (void)level, (void)name, (void)value, (void)length;
    errno = ENOPROTOOPT; /* the core can do without the option that it asks for */
    return -1;
}

int os_getsockname(int fd, struct sockaddr *name, socklen_t *length)
{
    return give_name(fd, 0x7F000001, name, length);
}

int os_getpeername(int fd, struct sockaddr *name, socklen_t *length)
{
    return give_name(fd, 0x7F000002, name, length);
}

/* ---- the other end ---- */

struct sim_connection *sim_connect(int listener)
{
    const struct sim_socket *s = &world->sockets[listener - FIRST_DESCRIPTOR];
    struct sim_connection *c;

    if (s->kind != LISTENING || s->deaf)
        return NULL;
    c = connection_new(1);
    c->listener = listener;
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
    arrive(c);
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
    arrive(c);
    c->peer_finished = 1;
}

void sim_leave(struct sim_connection *c)
{
    sim_tell("connection %u: the peer closes", c->number);
    arrive(c);
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

/* For a violation or a line of the story. */
static const char *operation_name(const struct operation *o)
{
    static char name[64];
    int kind = ((const OVERLAPPED *)(const void *)o->remembered)->kind; /* the operation's own may be overwritten */

    if (o->connection == NULL)
        return kind_name(kind);
    snprintf(name, sizeof name, "%s of connection %u", kind_name(kind), o->connection->number);
    return name;
}

static uint64_t checksum(const struct operation *o)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < o->buffer_count; i++) {
        const char *at = o->buffers[i].iov_base, *end = at + o->buffers[i].iov_len;
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
    o->scribble = (unsigned char)sim_random();
    for (unsigned i = 0; i < o->buffer_count; i++) {
        if (o->buffers[i].iov_len > 0)
            memset(o->buffers[i].iov_base, o->scribble, o->buffers[i].iov_len);
    }
}

static int is_full_of(unsigned char byte, const unsigned char *bytes, size_t count)
{
    return count == 0 || (bytes[0] == byte && memcmp(bytes, bytes + 1, count - 1) == 0);
}

/* Is the part of the buffers into which nothing was received as the kernel left it? */
static int scribble_stands(const struct operation *o)
{
    size_t taken = o->bytes;

    for (unsigned i = 0; i < o->buffer_count; i++) {
        const struct iovec *buffer = &o->buffers[i];
        size_t here = taken < buffer->iov_len ? taken : buffer->iov_len;

        if (!is_full_of(o->scribble, (const unsigned char *)buffer->iov_base + here, buffer->iov_len - here))
            return 0;
        taken -= here;
    }
    return 1;
}

static int overlap(const struct iovec *a, const struct iovec *b)
{
    const char *first = a->iov_base, *second = b->iov_base;

    return first < second + b->iov_len && second < first + a->iov_len;
}

/* Only two sends may share their bytes. */
static int shares_memory(const struct operation *a, const struct operation *b)
{
    if (a->overlapped->kind != OVERLAPPED_RECEIVE && b->overlapped->kind != OVERLAPPED_RECEIVE)
        return 0;
    for (unsigned i = 0; i < a->buffer_count; i++) {
        for (unsigned j = 0; j < b->buffer_count; j++) {
            if (overlap(&a->buffers[i], &b->buffers[j]))
                return 1;
        }
    }
    return 0;
}

static int has_buffers(const OVERLAPPED *overlapped)
{
    return overlapped->kind == OVERLAPPED_RECEIVE || overlapped->kind == OVERLAPPED_SEND;
}

static void note_buffers(struct operation *o)
{
    if (!has_buffers(o->overlapped))
        return;
    if (o->overlapped->buffers > GATHERED)
        abort();
    o->buffer_count = o->overlapped->buffers;
    memcpy(o->buffers, overlapped_buffers(o->overlapped), o->buffer_count * sizeof *o->buffers);
}

/* Accepts the changes that the port makes to an operation when it queues its packet. */
static void remember_queueing(struct operation *o)
{
    OVERLAPPED *remembered = (OVERLAPPED *)(void *)o->remembered;

    remembered->Internal = o->overlapped->Internal;
    remembered->next = o->overlapped->next;
    remembered->copy = o->overlapped->copy;
}

static void check_operation(struct operation *o)
{
    if (o->queued)
        remember_queueing(o);
    if (memcmp(o->overlapped, o->remembered, world->operation_size) != 0)
        sim_violation("the operation itself changed while in flight: the %s", operation_name(o));
}

static void check_buffers(struct operation *o)
{
    if (o->overlapped->kind == OVERLAPPED_SEND && checksum(o) != o->checksum)
        sim_violation("the bytes to be sent changed while in flight: the %s", operation_name(o));
    if (o->overlapped->kind == OVERLAPPED_RECEIVE && !scribble_stands(o))
        sim_violation("the receive buffer was written to while in flight: the %s", operation_name(o));
}

/* The kernel must be given memory that no other operation has, and a zeroed OVERLAPPED. */
static void check_start(struct operation *fresh)
{
    OVERLAPPED *overlapped = fresh->overlapped;

    for (unsigned i = 0; i < world->operation_count; i++) {
        struct operation *o = world->operations[i];

        if (o->overlapped == overlapped)
            sim_violation("%s: started on the OVERLAPPED of an operation in flight", operation_name(o));
        check_operation(o);
        if (shares_memory(fresh, o))
            sim_violation("%s: its buffer was given to the kernel a second time", operation_name(o));
    }
    if (overlapped->InternalHigh != 0 || overlapped->next != NULL || overlapped->flags != 0 ||
        overlapped->accepted != 0)
        sim_violation("%s: started on an OVERLAPPED that was not zeroed", operation_name(fresh));
    if (has_buffers(overlapped) && fresh->connection == NULL)
        sim_violation("%s: started on a socket that is not connected", operation_name(fresh));
}

/* ---- progress: 1 if something happened ---- */

static int end(struct operation *o, int status)
{
    o->ended = 1;
    o->ended_at = world->now;
    o->status = status;
    if (comes(SIM_LATE_PACKETS))
        o->not_before = world->now + sim_below(world->mood.lateness);
    return 1;
}

static int one_of(const int *errors, size_t count)
{
    return errors[sim_below(count)];
}

/* The connection fails by no fault of either end. On Windows: 6, 59, 64, 121, 676, 995, 1225, 1231, 1236, 10054. */
static int fail(struct operation *o)
{
    static const int errors[] = {EBADF,        ENETDOWN,     ECONNRESET,   ETIMEDOUT,    EINTR, ECANCELED,
                                 ECONNREFUSED, EHOSTUNREACH, ECONNABORTED, ENETUNREACH, ENOBUFS};

    sim_excuse(o->connection, "the network failed");
    connection_reset(o->connection);
    return end(o, one_of(errors, sizeof errors / sizeof *errors));
}

static size_t piece(size_t most)
{
    uint64_t longest = world->mood.longest_piece;

    return comes(SIM_SHORT_MOVES) ? sim_scale(1, most < longest ? most : longest) : most;
}

/* A random one of the connections that wait at that listener; NEVER if none does. */
static uint64_t choose_waiting(int listener)
{
    uint64_t chosen = NEVER;
    unsigned waiting = 0;

    for (unsigned i = 0; i < world->backlog_count; i++) {
        if (world->backlog[i]->listener == listener && sim_below(++waiting) == 0)
            chosen = i;
    }
    return chosen;
}

static int try_accept(struct operation *o)
{
    static const int errors[] = {ECONNABORTED, ECONNRESET, ENETDOWN, ETIMEDOUT, ECANCELED,
                                 EMFILE,       ENFILE,     ENOBUFS,  ENOMEM};
    uint64_t chosen = choose_waiting(o->fd);
    struct sim_connection *c;
    int fd;

    if (chosen == NEVER)
        return 0;
    if (comes(SIM_ACCEPT_ERRORS))
        return end(o, one_of(errors, sizeof errors / sizeof *errors));
    if (world->backlog[chosen]->reset && sim_below(2)) {
        take_from_backlog((unsigned)chosen)->core_closed = 1;
        return end(o, sim_as_windows() ? ECONNRESET : ECONNABORTED);
    }
    fd = descriptor_new(CONNECTED);
    if (fd < 0)
        return end(o, EMFILE);
    c = take_from_backlog((unsigned)chosen);
    world->sockets[fd - FIRST_DESCRIPTOR].connection = c;
    world->sockets[o->fd - FIRST_DESCRIPTOR].armed = 1;
    o->accepted = fd;
    sim_tell("connection %u: accepted as descriptor %d", c->number, fd - FIRST_DESCRIPTOR);
    return end(o, 0);
}

int os_poll(struct pollfd *asked, unsigned long count, int milliseconds)
{
    if (descriptor(asked->fd, "poll") == NULL)
        return poll(asked, count, milliseconds);
    return choose_waiting(asked->fd) != NEVER;
}

int os_accept(int fd, struct sockaddr *name, socklen_t *length)
{
    uint64_t chosen;
    int accepted;

    if (descriptor(fd, "accept") == NULL)
        return accept(fd, name, length);
    chosen = choose_waiting(fd);
    accepted = descriptor_new(CONNECTED);
    if (accepted >= 0) {
        struct sim_connection *c = take_from_backlog((unsigned)chosen);

        world->sockets[accepted - FIRST_DESCRIPTOR].connection = c;
        world->sockets[accepted - FIRST_DESCRIPTOR].updated = 1;
        sim_tell("connection %u: taken from the queue as descriptor %d", c->number, accepted - FIRST_DESCRIPTOR);
    } else {
        world->sockets[fd - FIRST_DESCRIPTOR].starved = 1;
    }
    return accepted;
}

static int try_connect(struct operation *o)
{
    struct sim_connection *c;

    if (comes(SIM_REFUSALS))
        return end(o, sim_below(2) ? ECONNREFUSED : ETIMEDOUT);
    c = connection_new(CALLED_ROOM);
    world->sockets[o->fd - FIRST_DESCRIPTOR].kind = CONNECTED;
    world->sockets[o->fd - FIRST_DESCRIPTOR].connection = c;
    sim_tell("connection %u: the core connects as descriptor %d", c->number, o->fd - FIRST_DESCRIPTOR);
    world->people.called(world->people.self, c);
    return end(o, 0);
}

/* A receive after a reset may look like an end: seen on wine, never on Windows. */
static int reset_status(void)
{
    return sim_one_in(4) && !sim_as_windows() ? 0 : ECONNRESET;
}

static void receive_piece(struct operation *o, size_t most)
{
    for (unsigned i = 0; i < o->buffer_count && o->bytes < most; i++) {
        size_t left = most - o->bytes, here = o->buffers[i].iov_len;
        size_t taken = ring_take(&o->connection->to_core, o->buffers[i].iov_base, here < left ? here : left);

        o->bytes += taken;
        if (taken < here)
            return;
    }
}

static int try_receive(struct operation *o)
{
    struct sim_connection *c = o->connection;
    size_t length = overlapped_length(o->overlapped);

    if (c->deaf)
        return 0;
    if (c->reset)
        return end(o, reset_status());
    if (c->to_core.count == 0 && !c->peer_finished)
        return 0;
    if (c->to_core.count > 0 && comes(SIM_ERRORS))
        return fail(o);
    if (length > 0)
        receive_piece(o, piece(length));
    c->told = length == 0;
    return end(o, 0);
}

static void count_taken(struct sim_connection *c, const void *bytes, size_t count)
{
    c->taken += world->layered ? records_count(&c->records, bytes, count) : count;
    if (c->records.wrong)
        sim_violation("connection %u: the core has sent bytes that are no record", c->number);
}

/* Sends some of the rest, from where the last piece ended. */
static size_t send_piece(struct operation *o, size_t most)
{
    size_t before = o->bytes, moved = 0;

    for (unsigned i = 0; i < o->buffer_count && moved < most; i++) {
        size_t here = o->buffers[i].iov_len, taken;

        if (before >= here) {
            before -= here;
            continue;
        }
        here = here - before < most - moved ? here - before : most - moved;
        taken = ring_put(&o->connection->to_peer, (char *)o->buffers[i].iov_base + before, here);
        count_taken(o->connection, (char *)o->buffers[i].iov_base + before, taken);
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
    if (comes(SIM_ERRORS))
        return fail(o);
    moved = send_piece(o, piece(length - o->bytes));
    if (moved > 0 && o->bytes < length)
        sim_tell("connection %u: %zu of the %zu bytes in flight are sent", c->number, o->bytes, length);
    if (o->bytes == length || (moved > 0 && comes(SIM_SHORT_SENDS)))
        return end(o, 0);
    return moved > 0;
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
    if (o->cancelled && !comes(SIM_LOST_CANCELS)) {
        if (sim_as_windows() && o->overlapped->kind == OVERLAPPED_RECEIVE)
            o->connection->deaf = 1;
        return end(o, ECANCELED);
    }
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

static void sim_disown(struct iocp_port *port)
{
    (void)port; /* its descriptors are numbers */
}

static int sim_own(struct iocp_port *port)
{
    (void)port;
    return 0;
}

static int sim_associate(struct iocp_socket *s)
{
    struct sim_connection *c = descriptor(s->fd, "associate")->connection;

    if (c == NULL || !comes(SIM_REFUSALS))
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
    note_buffers(o);
    return o;
}

/* From here on the kernel owns the operation's memory. */
static void hold(struct operation *o)
{
    o->socket->pending++;
    world->operations[world->operation_count++] = o;
    sim_tell("descriptor %d: %s pends", o->fd - FIRST_DESCRIPTOR, operation_name(o));
}

/* The core may not close because a receive lacks memory, unless that is to fetch data that the core knows of. */
static int must_go_on(const struct operation *o, int error)
{
    return o->overlapped->kind == OVERLAPPED_RECEIVE && overlapped_length(o->overlapped) > 0 && !o->connection->told &&
           (error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM);
}

/* Windows' errors are 10022, 10024, 10040, 10053, 10054, 10055, 10057, 10058, 1450, 1453, 1816. */
static int refuse_start(struct operation *o)
{
    static const int errors[] = {EINVAL,  EMFILE,   EMSGSIZE, ECONNABORTED, ECONNRESET,
                                 ENOBUFS, ENOTCONN, EPIPE,    ENOMEM,       ENFILE};
    int error = one_of(errors, sizeof errors / sizeof *errors);

    if (o->connection != NULL && !must_go_on(o, error))
        sim_excuse(o->connection, "an operation could not be started");
    sim_tell("descriptor %d: %s fails to start: %s", o->fd - FIRST_DESCRIPTOR, operation_name(o), strerror(error));
    free(o);
    return error;
}

/* It has ended before its start returned: 0 or its error. After a success with a packet to come it stays ours. */
static int end_inline(struct operation *o)
{
    int status = o->status;

    o->overlapped->InternalHigh = o->bytes;
    o->overlapped->accepted = o->accepted;
    sim_tell("descriptor %d: %s ends at once: %zu bytes, %s", o->fd - FIRST_DESCRIPTOR, operation_name(o), o->bytes,
             strerror(status));
    if (status == 0 && !o->socket->skip) {
        o->queued = 1;
        memcpy(o->remembered, o->overlapped, world->operation_size);
        world->operations[world->operation_count++] = o;
    } else {
        free(o);
    }
    return status;
}

static int sim_start(struct iocp_socket *s, OVERLAPPED *overlapped)
{
    struct operation *o = operation_new(s, overlapped);

    check_start(o);
    if (comes(SIM_FAILED_STARTS))
        return refuse_start(o);
    if (overlapped->kind == OVERLAPPED_SEND)
        o->checksum = checksum(o);
    if (overlapped->kind == OVERLAPPED_RECEIVE)
        scribble(o);
    if (comes(SIM_BUSY))
        step();
    if (comes(SIM_INLINE_ENDS) && try(o) && o->ended)
        return end_inline(o);
    hold(o);
    if (overlapped->kind == OVERLAPPED_ACCEPT)
        world->sockets[o->fd - FIRST_DESCRIPTOR].armed = 1;
    return EINPROGRESS;
}

/* ---- the backend: cancelling ---- */

static void cancel(struct operation *o)
{
    if (o->ended || o->cancelled) /* too late */
        return;
    sim_tell("descriptor %d: %s is cancelled", o->fd - FIRST_DESCRIPTOR, operation_name(o));
    o->cancelled = 1;
    if (comes(SIM_SLOW_CANCELS))
        o->not_before = world->now + SECOND + sim_below(SECOND / 2);
    else if (sim_one_in(2))
        proceed(o); /* its packet is yet to come */
}

static void sim_cancel(struct iocp_socket *s, OVERLAPPED *overlapped)
{
    for (unsigned i = 0; i < world->operation_count; i++) {
        struct operation *o = world->operations[i];

        if (o->socket == s && (overlapped == NULL || o->overlapped == overlapped))
            cancel(o);
    }
}

/* Many statuses were seen after a close. On Windows: cancelled or aborted (1236, 64); an accept: cancelled. */
static int status_of_closed(const struct operation *o)
{
    static const int statuses[] = {ECANCELED, ECONNABORTED, ECANCELED, ECONNRESET, EINTR};
    enum { OF_WINDOWS = 2 };

    if (sim_as_windows() && o->connection == NULL)
        return ECANCELED;
    return one_of(statuses, sim_as_windows() ? OF_WINDOWS : sizeof statuses / sizeof *statuses);
}

/* The socket is closed: its pending operations can only end. On some systems a send that was not cancelled would not
 * even end, so the core must cancel first. */
static void cut_off(struct operation *o)
{
    if (!o->cancelled)
        sim_violation("closesocket() before CancelIoEx(): the %s is in flight", operation_name(o));
    o->not_before = 0;
    end(o, status_of_closed(o));
    if (comes(SIM_SLOW_DRAINS))
        o->not_before = world->now + sim_below(4 * SECOND);
}

static void sim_detach(struct iocp_socket *s)
{
    for (unsigned i = 0; i < world->operation_count; i++) {
        if (world->operations[i]->socket == s && !world->operations[i]->ended)
            cut_off(world->operations[i]);
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
    return o->ended && !o->queued && o->socket->port == port && o->not_before <= world->now;
}

static void swap_with_random(unsigned i)
{
    unsigned j = i + (unsigned)sim_below(world->operation_count - i);
    struct operation *o = world->operations[j];

    world->operations[j] = world->operations[i];
    world->operations[i] = o;
}

/* Hands out some of the packets that are due, in any order. */
static unsigned hand_out_some(struct iocp_port *port, int at_least_one)
{
    unsigned i = 0, count = 0;

    while (i < world->operation_count) {
        int must = at_least_one && count == 0;

        swap_with_random(i);
        if (is_due(world->operations[i], port) && (must || !comes(SIM_HELD_BACK))) {
            hand_out(i);
            count++;
        } else {
            i++;
        }
    }
    return count;
}

/* There is only one thread, so a sleep cannot last: it is noted, and the call returns as if by timeout. The simulation
 * gives the worker its next turn when sim_runnable() says so; the call in that turn is the sleep's true end. */
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

static int sim_has_come(struct iocp_socket *s, OVERLAPPED *overlapped)
{
    (void)s;
    for (unsigned i = 0; i < world->operation_count; i++) {
        struct operation *o = world->operations[i];

        if (o->overlapped == overlapped)
            return o->ended || (o->overlapped->kind == OVERLAPPED_RECEIVE && has_arrived(o->connection));
    }
    return 1;
}

static void sim_submit(struct iocp_port *port)
{
    (void)port; /* starts are submitted at once */
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
    .disown = sim_disown,
    .own = sim_own,
    .associate = sim_associate,
    .start = sim_start,
    .cancel = sim_cancel,
    .detach = sim_detach,
    .has_come = sim_has_come,
    .wait = sim_wait,
    .submit = sim_submit,
    .wake = sim_wake,
    .now = sim_port_now,
};

/* ---- the calls that the core makes of a port ---- */

static void release_queued(OVERLAPPED *overlapped)
{
    for (unsigned i = 0; i < world->operation_count; i++) {
        struct operation *o = world->operations[i];

        if (o->queued && o->overlapped == overlapped) {
            check_operation(o);
            world->operations[i] = world->operations[--world->operation_count];
            sim_tell("packet of the %s that ended at once", operation_name(o));
            free(o);
            return;
        }
    }
}

BOOL sim_dequeue(HANDLE handle, OVERLAPPED_ENTRY *entries, ULONG count, ULONG *removed, DWORD milliseconds,
                 BOOL alertable)
{
    struct iocp_port *port = handle;
    struct sim_port *p = port->backend_data;

    if (comes(SIM_FAILED_DEQUEUES)) {
        sim_tell("port %u: the dequeue fails", p->number);
        p->failed_dequeues++;
        *removed = 1;
        errno = EINTR;
        return FALSE;
    }
    if (GetQueuedCompletionStatusEx(handle, entries, count, removed, milliseconds, alertable)) {
        for (ULONG i = 0; i < *removed; i++)
            release_queued(entries[i].lpOverlapped);
        return TRUE;
    }
    if (comes(SIM_TIMEOUT_SAYS_ONE)) /* as wine */
        *removed = 1;
    return FALSE;
}

BOOL sim_post(HANDLE port, DWORD bytes, ULONG_PTR key, OVERLAPPED *overlapped)
{
    if (sim_memory_is_short()) {
        errno = ENOMEM;
        return FALSE;
    }
    return PostQueuedCompletionStatus(port, bytes, key, overlapped);
}

/* A shortage excuses the connections that there are now, not those that come later. */
int sim_memory_is_short(void)
{
    if (!world->scarce || !comes(SIM_SCARCE_MEMORY))
        return 0;
    sim_tell("there is no memory");
    for (unsigned i = 0; i < world->connection_count; i++) {
        if (!world->connections[i]->core_closed)
            sim_excuse(world->connections[i], "memory was short");
    }
    return 1;
}

void sim_make_memory_scarce(int scarce)
{
    world->scarce = scarce;
}

unsigned sim_failed_dequeues(HANDLE handle)
{
    struct iocp_port *port = handle;
    struct sim_port *p = port->backend_data;

    return p->failed_dequeues;
}

/* ---- the ports, for the simulation that gives the turns ---- */

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

int sim_came_by(const OVERLAPPED *receive, uint64_t by)
{
    for (unsigned i = 0; i < world->operation_count; i++) {
        const struct operation *o = world->operations[i];

        if (o->overlapped != receive)
            continue;
        if (o->ended)
            return o->status != ECANCELED && o->ended_at < by;
        return has_arrived(o->connection) && o->connection->arrived_at < by;
    }
    return 0;
}

unsigned sim_in_flight(HANDLE handle)
{
    struct iocp_port *port = handle;
    unsigned count = 0;

    for (unsigned i = 0; i < world->operation_count; i++)
        count += !world->operations[i]->queued && world->operations[i]->socket->port == port;
    for (OVERLAPPED *o = port->done.head; o != NULL; o = o->next)
        count++;
    return count;
}

OVERLAPPED *sim_operation(unsigned index)
{
    return index < world->operation_count ? world->operations[index]->overlapped : NULL;
}

void sim_check_memory(void)
{
    for (unsigned i = 0; i < world->operation_count; i++) {
        check_operation(world->operations[i]);
        check_buffers(world->operations[i]);
    }
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

void sim_begin(uint64_t seed, const struct sim_limits *limits, size_t operation_size, int telling)
{
    world = calloc(1, sizeof *world);
    if (world == NULL || operation_size > REMEMBERED)
        abort();
    world->limits = *limits;
    world->chance = world->seed = seed;
    world->now = SECOND; /* 0 has a meaning of its own in the core */
    world->operation_size = operation_size;
    world->telling = telling;
    choose_mood(&world->mood);
    tell_mood(&world->mood);
    world->layered = sim_one_in(4) && limits->layer;
    if (world->layered)
        sim_tell("the wires carry records");
    while (world->closed_count < world->mood.descriptors) {
        world->closed[world->closed_count] = (int)(world->mood.descriptors - 1 - world->closed_count);
        world->closed_count++;
    }
}

void sim_settle(const struct sim_people *people)
{
    world->people = *people;
}

void sim_shuffle(void)
{
    world->chance += world->limits.salt * UINT64_C(0xD1342543DE82EF95);
}

/* The next world must not know their sockets. */
static void close_ports(void)
{
    for (unsigned i = 0; i < world->port_count; i++) {
        if (world->ports[i].port != NULL)
            CloseHandle(world->ports[i].port);
    }
}

void sim_end(void)
{
    if (!world->crashed)
        close_ports();
    for (unsigned i = 0; i < world->connection_count; i++)
        connection_free(world->connections[i]);
    for (unsigned i = 0; i < world->operation_count; i++)
        free(world->operations[i]);
    free(world->story);
    free(world);
    world = NULL;
}
