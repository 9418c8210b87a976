/* Peers act one at a time, in small steps: a piece written, a piece read, an end, a reset, or a long stall.
 *
 * A client sends a stretch of one pattern, so that a byte that comes back differs from those nearby. The stretch
 * must come back in order, once, and whole unless its connection has an excuse. Where the listener's handler talks as
 * it likes (PEERS_TALK) the same bytes come in the same order; only the handler knows how many.
 */
#include <stdlib.h>
#include <string.h>

#include "peers.h"
#include "records.h"

#define MILLISECOND UINT64_C(1000000)
#define SECOND UINT64_C(1000000000)

enum { PERIOD = PEERS_PERIOD, CLIENTS = 12, SERVERS = 64, CARRIED = 8192 };

/* How a client's connection ends. */
enum ending {
    FINISHES, /* ends its side when all is sent, and reads to the end */
    LEAVES,   /* closes when all has come back */
    STAYS,    /* until the server closes */
    RESETS,   /* in the middle */
    VANISHES, /* in the middle, without a word: it neither reads nor ends */
    DEAF,     /* sends all, ends its side, and reads no more */
    ENDINGS
};

struct client {
    struct sim_connection *c; /* NULL: not yet connected */
    int listener;
    unsigned customs;         /* of the listener */
    uint64_t at;              /* it does nothing before that time */
    uint64_t to_send, sent, got;
    uint64_t patience; /* RESETS, VANISHES: after that many bytes, both ways together */
    size_t offset;     /* where in the pattern it begins */
    enum ending ending;
    int stalls; /* long stalls that are still to come */
    int finished;
    int ended; /* it has read to the end */
    int over;
    /* In a layered world: */
    struct records in;
    unsigned char out[RECORD_HEAD + RECORD_MOST]; /* the record that it is sending, from `out_first` on */
    size_t out_first, out_count;
    size_t out_user; /* the user's bytes in it: they count as sent when it has gone */
    int last_word;   /* it is sent, or is that record */
    int silent;      /* after its last word it does not end its side */
};

/* The echo server of one connection that the core has made. */
struct server {
    struct sim_connection *c;
    char carried[CARRIED];
    size_t first, count;
    struct records in; /* of a layered world */
    int over;
};

struct peers {
    const int *listeners;
    const unsigned *customs; /* of each listener */
    unsigned listener_count;
    struct client clients[CLIENTS];
    unsigned client_count;
    struct server *servers[SERVERS];
    unsigned server_count;
    uint64_t pauses; /* one in so many acts is followed by a pause */
    uint64_t longest_pause;
    uint64_t server_resets;
    int closing, early;
};

static unsigned char pattern[2 * PERIOD];

static void lay_out_pattern(void)
{
    uint64_t state = 1;

    for (size_t i = 0; i < PERIOD; i++) {
        state = state * UINT64_C(6364136223846793005) + 1442695040888963407u;
        pattern[i] = pattern[i + PERIOD] = (unsigned char)(state >> 56);
    }
}

static uint64_t least_of(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* ---- clients ---- */

static int may_end_early(const struct client *p)
{
    return sim_excused(p->c) != NULL || p->ending >= RESETS || p->customs & PEERS_TIMED ||
           (p->customs & PEERS_REFUSED && p->got == 0);
}

static int is_whole(const struct client *p)
{
    return p->sent == p->to_send && (p->got == p->to_send || p->customs & PEERS_TALK);
}

static int client_connects(struct peers *peers, struct client *p)
{
    p->c = sim_connect(p->listener);
    if (p->c == NULL) {
        sim_tell("a peer is refused: the listener is closed");
        p->over = 1;
        return 1;
    }
    if (peers->early)
        sim_excuse(p->c, "the core was closing when it came");
    /* At most 256 full moves: with a small ring more would take too long. */
    p->to_send = least_of(p->to_send, 256 * sim_room(p->c));
    if (p->customs & PEERS_PAIRS)
        p->to_send &= ~UINT64_C(1);
    p->patience = sim_below((p->customs & PEERS_TALK ? 1 : 2) * p->to_send + 1);
    return 1;
}

static void client_packs(struct client *p, const unsigned char *bytes, size_t count)
{
    record_head(p->out, count);
    memcpy(p->out + RECORD_HEAD, bytes, count);
    p->out_first = 0;
    p->out_count = RECORD_HEAD + count;
    p->out_user = count;
}

/* Sends some more of its record. */
static int client_flushes(struct client *p, size_t most)
{
    size_t taken = sim_write(p->c, p->out + p->out_first, most);

    p->out_first += taken;
    p->out_count -= taken;
    if (p->out_count == 0) {
        p->sent += p->out_user;
        p->out_user = 0;
    }
    return taken > 0 || sim_was_reset(p->c);
}

static int client_writes_record(struct client *p, uint64_t left)
{
    if (p->out_count == 0)
        client_packs(p, pattern + (p->offset + p->sent) % PERIOD, sim_scale(1, least_of(left, RECORD_MOST)));
    return client_flushes(p, sim_scale(1, p->out_count));
}

static int client_writes(struct client *p)
{
    uint64_t left = p->to_send - p->sent;
    size_t taken;

    if (left == 0 || sim_was_reset(p->c))
        return 0;
    if (sim_layered())
        return client_writes_record(p, left);
    taken = sim_write(p->c, pattern + (p->offset + p->sent) % PERIOD, sim_scale(1, least_of(left, PERIOD)));
    p->sent += taken;
    return taken > 0 || sim_was_reset(p->c); /* the write has reset it, if the core had closed */
}

static void client_compares(struct client *p, const unsigned char *bytes, size_t count)
{
    const unsigned char *expected = pattern + (p->offset + p->got) % PERIOD;

    if (p->got + count > p->sent && !(p->customs & PEERS_TALK))
        sim_violation("connection %u: more came back than was sent", sim_number(p->c));
    for (size_t i = 0; i < count; i++) {
        if (bytes[i] != expected[i])
            sim_violation("connection %u: byte %lu came back as %u, not %u", sim_number(p->c),
                          (unsigned long)(p->got + i), bytes[i], expected[i]);
    }
    p->got += count;
}

/* Closes; sends its last word before, as far as there is room. */
static void client_leaves(struct client *p)
{
    if (sim_layered() && !p->last_word && p->out_count == 0) {
        client_packs(p, pattern, 0);
        client_flushes(p, p->out_count);
    }
    sim_leave(p->c);
    p->over = 1;
}

/* The core has ended its side. A client with bytes left to send goes on, unless it LEAVES. */
static int client_hears_end(struct client *p)
{
    p->ended = 1;
    if (p->sent == p->to_send || p->ending == LEAVES)
        client_leaves(p);
    return 1;
}

/* A stream of records that ends without the last word is not whole. A closing core may have had no time to begin one. */
static void client_checks_last_word(const struct peers *peers, const struct client *p)
{
    if (sim_layered() && !p->in.last && !may_end_early(p) && (p->in.begun || !peers->closing))
        sim_violation("connection %u: the core has ended it without its last word", sim_number(p->c));
}

static int client_ends(struct peers *peers, struct client *p, enum sim_read how)
{
    if (how == SIM_END && !p->ended)
        client_checks_last_word(peers, p);
    if (how == SIM_END && p->customs & PEERS_TALK)
        return p->ended ? 0 : client_hears_end(p);
    if (!may_end_early(p) && (!is_whole(p) || (how == SIM_RESET && !peers->closing)))
        sim_violation("connection %u: %s after %lu of %lu bytes had come back, for no reason", sim_number(p->c),
                      how == SIM_RESET ? "reset" : "ended", (unsigned long)p->got, (unsigned long)p->to_send);
    if (how == SIM_END) {
        p->ended = 1;
        client_leaves(p);
    }
    p->over = 1;
    return 1;
}

/* Moves the user's bytes among these to the front; returns how many they are. */
static size_t client_unpacks(struct client *p, unsigned char *bytes, size_t count)
{
    const unsigned char *at = bytes;
    size_t users = 0;

    while (count > 0) {
        size_t here = count;
        unsigned char piece[RECORD_MOST];

        here = records_step(&p->in, &at, &count, piece, sizeof piece);
        if (p->in.wrong)
            sim_violation("connection %u: the core has sent bytes that are no record", sim_number(p->c));
        memcpy(bytes + users, piece, here);
        users += here;
    }
    return users;
}

static int client_reads(struct peers *peers, struct client *p)
{
    unsigned char bytes[PERIOD];
    size_t count;
    enum sim_read got = sim_read(p->c, bytes, sim_scale(1, sizeof bytes), &count);

    if (got == SIM_NOTHING)
        return 0;
    if (got != SIM_DATA)
        return client_ends(peers, p, got);
    client_compares(p, bytes, sim_layered() ? client_unpacks(p, bytes, count) : count);
    return 1;
}

static int client_has_said_last_word(const struct client *p)
{
    return p->last_word && p->out_count == 0;
}

static int client_says_last_word(struct client *p)
{
    if (!p->last_word)
        client_packs(p, pattern, 0);
    p->last_word = 1;
    return client_flushes(p, sim_scale(1, p->out_count));
}

static int client_finishes(struct client *p)
{
    if (p->finished || p->sent < p->to_send || (p->ending != FINISHES && p->ending != DEAF))
        return 0;
    if (p->ended) { /* both sides have ended */
        client_leaves(p);
        return 1;
    }
    if (sim_layered() && !client_has_said_last_word(p))
        return client_says_last_word(p);
    if (!p->silent)
        sim_finish(p->c);
    p->finished = 1;
    return 1;
}

/* Ends the connection in the client's own way, if it is time to; returns whether it is over. */
static int client_goes(struct client *p)
{
    if ((p->ending == RESETS || p->ending == VANISHES) && p->sent + p->got >= p->patience) {
        if (p->ending == RESETS)
            sim_reset(p->c);
        p->over = 1;
    } else if (p->ending == DEAF && p->finished) {
        p->over = 1;
    } else if ((p->ending == LEAVES && is_whole(p)) || (p->ending == STAYS && p->ended && is_whole(p))) {
        client_leaves(p);
    }
    return p->over;
}

static void client_pauses(struct peers *peers, struct client *p)
{
    if (p->stalls > 0 && sim_one_in(16)) {
        p->stalls--;
        p->at = sim_now() + sim_scale(SECOND / 8, 12 * SECOND);
    } else if (sim_one_in(peers->pauses)) {
        p->at = sim_now() + sim_scale(1000, peers->longest_pause);
    }
}

static int client_acts(struct peers *peers, struct client *p)
{
    int did;

    if (p->over || p->at > sim_now())
        return 0;
    if (p->c == NULL)
        return client_connects(peers, p);
    if (client_goes(p))
        return 1;
    if (sim_below(2))
        did = client_writes(p) || client_finishes(p) || client_reads(peers, p);
    else
        did = client_reads(peers, p) || client_writes(p) || client_finishes(p);
    if (did)
        client_pauses(peers, p);
    return did;
}

/* Where descriptors or places are few, no client may keep one for long: others wait for it. */
static void client_hurries(struct client *p)
{
    if (p->ending == STAYS || p->ending == DEAF)
        p->ending = LEAVES;
    else if (p->ending == VANISHES)
        p->ending = RESETS;
    p->stalls = 0;
}

static void client_begin(struct peers *peers, unsigned i)
{
    static const char *const words[ENDINGS] = {"end its side and read to the end",
                                               "close when all has come back",
                                               "wait for the core's end",
                                               "reset in the middle",
                                               "vanish in the middle without a word",
                                               "end its side and never read again"};
    struct client *p = &peers->clients[i];
    unsigned l = (unsigned)sim_below(peers->listener_count);

    p->listener = peers->listeners[l];
    p->customs = peers->customs[l];
    p->at = sim_now() + (sim_below(2) ? 0 : sim_scale(1000, sim_scale(1000, 4 * SECOND)));
    p->to_send = sim_one_in(16) ? 0 : sim_scale(1, sim_one_in(16) ? 400000 : 30000);
    p->to_send = least_of(p->to_send, sim_limits()->bytes);
    p->offset = sim_below(PERIOD);
    p->ending = sim_below(2) ? FINISHES : (enum ending)sim_below(ENDINGS);
    p->stalls = sim_one_in(8) ? 1 + (int)sim_below(2) : 0;
    p->silent = sim_layered() && sim_below(2);
    p->over = sim_limits()->absent >> i & 1;
    if (sim_few_descriptors() || p->customs & PEERS_HURRIED)
        client_hurries(p);
    if (!p->over)
        sim_tell("peer %u will send up to %lu bytes, and %s", i, (unsigned long)p->to_send, words[p->ending]);
}

/* ---- echo servers ---- */

static void server_begin(void *self, struct sim_connection *c)
{
    struct peers *peers = self;
    struct server *s = calloc(1, sizeof *s);

    if (s == NULL || peers->server_count == SERVERS)
        abort();
    s->c = c;
    peers->servers[peers->server_count++] = s;
    if (peers->early)
        sim_excuse(c, "the core was closing when it connected");
}

static int server_reads(struct server *s)
{
    size_t at = s->first + s->count;
    enum sim_read got;
    size_t count;

    if (at == CARRIED)
        return 0;
    got = sim_read(s->c, s->carried + at, sim_scale(1, CARRIED - at), &count);
    if (sim_layered())
        records_count(&s->in, s->carried + at, count);
    s->count += count;
    if (got == SIM_END && sim_layered() && s->in.begun && !s->in.last && sim_excused(s->c) == NULL)
        sim_violation("connection %u: the core has ended it without its last word", sim_number(s->c));
    if (got == SIM_RESET || (got == SIM_END && s->count == 0)) {
        if (got == SIM_END)
            sim_leave(s->c);
        s->over = 1;
    }
    return s->over || got == SIM_DATA;
}

static int server_writes(struct server *s)
{
    size_t taken = s->count > 0 ? sim_write(s->c, s->carried + s->first, sim_scale(1, s->count)) : 0;

    s->first += taken;
    s->count -= taken;
    if (s->count == 0)
        s->first = 0;
    return taken > 0;
}

static int server_acts(struct peers *peers, struct server *s)
{
    if (s->over)
        return 0;
    if (sim_one_in(peers->server_resets)) {
        sim_excuse(s->c, "the peer reset it");
        sim_reset(s->c);
        s->over = 1;
        return 1;
    }
    return sim_below(2) ? server_reads(s) || server_writes(s) : server_writes(s) || server_reads(s);
}

/* ---- all of them ---- */

static int peers_act(void *self)
{
    struct peers *peers = self;
    unsigned all = peers->client_count + peers->server_count, first = (unsigned)sim_below(all);

    for (unsigned i = first; i < first + all; i++) {
        unsigned who = i % all;

        if (who < peers->client_count ? client_acts(peers, &peers->clients[who])
                                      : server_acts(peers, peers->servers[who - peers->client_count]))
            return 1;
    }
    return 0;
}

static uint64_t peers_next_at(void *self)
{
    const struct peers *peers = self;
    uint64_t next = UINT64_MAX;

    for (unsigned i = 0; i < peers->client_count; i++) {
        const struct client *p = &peers->clients[i];

        if (!p->over && p->at > sim_now())
            next = least_of(next, p->at);
    }
    return next;
}

struct peers *peers_begin(const int *listeners, const unsigned *customs, unsigned listener_count)
{
    struct peers *peers = calloc(1, sizeof *peers);

    if (peers == NULL)
        abort();
    lay_out_pattern();
    peers->listeners = listeners;
    peers->customs = customs;
    peers->listener_count = listener_count;
    peers->client_count = 1 + (unsigned)sim_below(CLIENTS);
    peers->pauses = sim_below(2) ? sim_scale(1, 32) : 0;
    peers->longest_pause = sim_scale(2000, 10 * MILLISECOND);
    peers->server_resets = sim_below(2) ? sim_scale(16, 512) : 0;
    for (unsigned i = 0; i < peers->client_count; i++)
        client_begin(peers, i);
    sim_settle(&(struct sim_people){.act = peers_act, .next_at = peers_next_at, .called = server_begin, .self = peers});
    return peers;
}

void peers_end(struct peers *peers)
{
    for (unsigned i = 0; i < peers->server_count; i++)
        free(peers->servers[i]);
    free(peers);
}

const unsigned char *peers_pattern(void)
{
    return pattern;
}

int peers_look(const struct peers *peers, const struct sim_connection *c, struct peers_view *view)
{
    for (unsigned i = 0; i < peers->client_count; i++) {
        const struct client *p = &peers->clients[i];

        if (p->c == c) {
            *view = (struct peers_view){.offset = p->offset, .sent = p->sent, .got = p->got, .ended = p->ended};
            return 1;
        }
    }
    return 0;
}

static int client_done(const struct client *p)
{
    return p->over || (p->ending == STAYS && p->c != NULL && is_whole(p));
}

int peers_done(const struct peers *peers)
{
    for (unsigned i = 0; i < peers->client_count; i++) {
        if (!client_done(&peers->clients[i]))
            return 0;
    }
    return 1;
}

void peers_are_stuck(const struct peers *peers)
{
    for (unsigned i = 0; i < peers->client_count; i++) {
        const struct client *p = &peers->clients[i];

        if (!client_done(p) && p->c != NULL)
            sim_violation("connection %u waits for ever: %lu of %lu bytes sent, %lu came back", sim_number(p->c),
                          (unsigned long)p->sent, (unsigned long)p->to_send, (unsigned long)p->got);
    }
    sim_violation("nothing can happen any more, and no client waits for anything");
}

void peers_warn(struct peers *peers, int early)
{
    peers->closing = 1;
    peers->early |= early;
    for (unsigned i = 0; i < peers->client_count; i++) {
        if (peers->clients[i].c != NULL && (early || peers->clients[i].customs & PEERS_TALK))
            sim_excuse(peers->clients[i].c, "the core was closing");
    }
    for (unsigned i = 0; i < peers->server_count && early; i++)
        sim_excuse(peers->servers[i]->c, "the core was closing");
}

void peers_check(const struct peers *peers)
{
    for (unsigned i = 0; i < peers->client_count; i++) {
        const struct client *p = &peers->clients[i];

        if (p->c != NULL && !sim_core_closed(p->c))
            sim_violation("connection %u: the core has not closed it", sim_number(p->c));
        if (!p->over)
            sim_violation("peer %u waits for ever", i);
    }
}
