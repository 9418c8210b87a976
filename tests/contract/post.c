/* Posting and dequeuing: order, batches, timeouts, and waking a dequeue that sleeps.
 * Threads: these cases alone use PostQueuedCompletionStatus, from threads of their own too.
 */
#include "contract.h"

enum { FEW = 10, ROUNDS = 3000, THREADS = 4, EACH = 5000 };

static OVERLAPPED_ENTRY take_one(HANDLE from)
{
    OVERLAPPED_ENTRY entry;
    ULONG count = 0;

    CHECK(GetQueuedCompletionStatusEx(from, &entry, 1, &count, 20000, FALSE));
    CHECK_EQUAL(count, 1);
    return entry;
}

static void post(HANDLE to, ULONG_PTR key)
{
    CHECK(PostQueuedCompletionStatus(to, 0, key, NULL));
}

static void a_packet_carries_what_was_posted(void)
{
    OVERLAPPED mine;
    OVERLAPPED_ENTRY entry;

    memset(&mine, 0, sizeof mine);
    CHECK(PostQueuedCompletionStatus(port, 0xFFFFFFF0u, (ULONG_PTR)-3, &mine));
    entry = take_one(port);
    CHECK_EQUAL(entry.dwNumberOfBytesTransferred, 0xFFFFFFF0u);
    CHECK(entry.lpCompletionKey == (ULONG_PTR)-3);
    CHECK(entry.lpOverlapped == &mine);
    CHECK_EQUAL(status_of(&entry), 0);
}

static void posted_packets_arrive_in_their_order(void)
{
    for (ULONG_PTR k = 0; k < 1000; k++)
        post(port, k);
    for (ULONG_PTR k = 0; k < 1000; k++)
        CHECK_EQUAL(take_one(port).lpCompletionKey, k);
}

static void order_survives_taking_and_posting_by_turns(void)
{
    ULONG_PTR in = 0, out = 0;

    while (in < 5000) {
        for (uint32_t n = random_below(40); n > 0; n--)
            post(port, in++);
        for (uint32_t n = random_below(40); n > 0 && out < in; n--)
            CHECK_EQUAL(take_one(port).lpCompletionKey, out++);
    }
    while (out < in)
        CHECK_EQUAL(take_one(port).lpCompletionKey, out++);
}

static void a_dequeue_takes_a_batch_and_leaves_the_rest(void)
{
    static const ULONG expected[] = {4, 4, 2};
    OVERLAPPED_ENTRY entries[4];

    for (ULONG_PTR k = 0; k < FEW; k++)
        post(port, k);
    for (int i = 0; i < 3; i++) {
        ULONG count = 0;

        CHECK(GetQueuedCompletionStatusEx(port, entries, 4, &count, 0, FALSE));
        CHECK_EQUAL(count, expected[i]);
        CHECK_EQUAL(entries[0].lpCompletionKey, 4 * i);
    }
}

static void dequeue_nothing(DWORD milliseconds)
{
    OVERLAPPED_ENTRY entry;
    ULONG count = 0; /* wine leaves 1 here: the answer alone counts */

    CHECK(!GetQueuedCompletionStatusEx(port, &entry, 1, &count, milliseconds, FALSE));
    CHECK_EQUAL(GetLastError(), WAIT_TIMEOUT);
}

static void an_empty_dequeue_ends_with_a_timeout(void)
{
    uint64_t before = iocp_now(port);

    dequeue_nothing(100);
    CHECK(iocp_now(port) - before > 50000000); /* it did wait; a Windows timer may be a tick early */
}

static void a_dequeue_without_a_timeout_looks_once(void)
{
    dequeue_nothing(0);
    post(port, 7);
    CHECK_EQUAL(take_one(port).lpCompletionKey, 7);
    dequeue_nothing(0);
}

struct table_tennis {
    HANDLE mine, theirs;
};

static void return_every_ball(void *argument)
{
    struct table_tennis *game = argument;
    ULONG_PTR key;

    do {
        key = take_one(game->mine).lpCompletionKey;
        post(game->theirs, key);
    } while (key != ROUNDS);
}

static void a_post_from_another_thread_wakes_a_sleeping_dequeue(void)
{
    struct table_tennis game;
    struct thread *thread;

    game.mine = another_port();
    game.theirs = port;
    thread = thread_start(return_every_ball, &game);
    for (ULONG_PTR k = 1; k <= ROUNDS; k++) {
        post(game.mine, k);
        CHECK_EQUAL(take_one(port).lpCompletionKey, k);
    }
    thread_join(thread);
    CHECK(CloseHandle(game.mine));
}

static LONG next_thread;

static void post_many(void *unused)
{
    ULONG_PTR me = (ULONG_PTR)InterlockedIncrement(&next_thread) - 1;

    (void)unused;
    for (ULONG_PTR k = 0; k < EACH; k++)
        post(port, me * EACH + k);
}

static void posts_from_several_threads_all_arrive_each_in_its_order(void)
{
    struct thread *threads[THREADS];
    ULONG_PTR expected[THREADS] = {0};

    next_thread = 0;
    for (int i = 0; i < THREADS; i++)
        threads[i] = thread_start(post_many, NULL);
    for (int i = 0; i < THREADS * EACH; i++) {
        ULONG_PTR key = take_one(port).lpCompletionKey;

        CHECK_EQUAL(key % EACH, expected[key / EACH]++);
    }
    for (int i = 0; i < THREADS; i++)
        thread_join(threads[i]);
    dequeue_nothing(0);
}

/* Dequeues until both a thread's posts and a pair's echoes have all come. */
static void posts_arrive_while_the_port_is_busy_with_sockets(void)
{
    struct pair pair;
    struct thread *thread;
    struct operation *receive;
    ULONG_PTR posts = 0;
    int echoes = 0;

    skipping = 0;
    next_thread = 0;
    pair = connected_pair();
    thread = thread_start(post_many, NULL);
    receive = start_receive(pair.own, 64);
    peer_send_some(pair.peer, "x", 1);
    while (posts < EACH || echoes < 300) {
        OVERLAPPED_ENTRY entry = take_one(port);

        if (entry.lpOverlapped == NULL) {
            CHECK_EQUAL(entry.lpCompletionKey, posts++);
            continue;
        }
        CHECK_EQUAL(status_of(&entry), 0);
        receive->ended = 1;
        if (++echoes < 300) {
            peer_send_some(pair.peer, "x", 1);
            restart_receive(receive);
        }
    }
    thread_join(thread);
}

static void posts_without_end_do_not_starve_a_completion(void)
{
    struct pair pair;
    struct operation *receive;
    int dequeues = 0;

    skipping = 0;
    pair = connected_pair();
    for (ULONG_PTR k = 0; k < 100; k++)
        post(port, k);
    receive = start_receive(pair.own, 64);
    peer_send_some(pair.peer, "x", 1);
    for (;;) {
        OVERLAPPED_ENTRY entry = take_one(port);

        if (entry.lpOverlapped != NULL)
            break;
        post(port, entry.lpCompletionKey);
        CHECK(++dequeues < 1000);
    }
    receive->ended = 1;
    for (int k = 0; k < 100; k++)
        CHECK(take_one(port).lpOverlapped == NULL);
}

static void completions_without_end_do_not_starve_a_post(void)
{
    struct pair pair;
    int dequeues = 0, posts = 0;

    skipping = 0;
    pair = connected_pair();
    for (int i = 0; i < 10; i++)
        start_send(pair.own, "x", 1);
    post(port, 1);
    while (posts == 0) {
        OVERLAPPED_ENTRY entry = take_one(port);

        posts += entry.lpOverlapped == NULL;
        if (entry.lpOverlapped != NULL) {
            ((struct operation *)entry.lpOverlapped)->ended = 1;
            start_send(pair.own, "x", 1);
        }
        CHECK(++dequeues < 1000);
    }
}

static void time_never_runs_backwards(void)
{
    uint64_t last = iocp_now(port);

    for (int i = 0; i < 100000; i++) {
        uint64_t now = iocp_now(port);

        CHECK(now >= last);
        last = now;
    }
    dequeue_nothing(50);
    CHECK(iocp_now(port) > last);
}

static void a_port_that_nobody_has_used_closes(void)
{
    CHECK(CloseHandle(another_port()));
}

static void a_port_closes_with_posted_packets_left(void)
{
    HANDLE other = another_port();

    for (ULONG_PTR k = 0; k < 100; k++)
        post(other, k);
    CHECK(CloseHandle(other));
}

const struct test_case post_cases[] = {
    CASE(a_packet_carries_what_was_posted),
    CASE(posted_packets_arrive_in_their_order),
    CASE(order_survives_taking_and_posting_by_turns),
    CASE(a_dequeue_takes_a_batch_and_leaves_the_rest),
    CASE(an_empty_dequeue_ends_with_a_timeout),
    CASE(a_dequeue_without_a_timeout_looks_once),
    CASE(a_post_from_another_thread_wakes_a_sleeping_dequeue),
    CASE(posts_from_several_threads_all_arrive_each_in_its_order),
    CASE(posts_arrive_while_the_port_is_busy_with_sockets),
    CASE(posts_without_end_do_not_starve_a_completion),
    CASE(completions_without_end_do_not_starve_a_post),
    CASE(time_never_runs_backwards),
    CASE(a_port_that_nobody_has_used_closes),
    CASE(a_port_closes_with_posted_packets_left),
    END_OF_CASES,
};
