/* WSASend: all the bytes in one completion, in order, however slowly the peer reads. */
#include "contract.h"

enum { LARGE = 64 << 20, MEDIUM = 8 << 20 };

static void a_small_send_completes_with_all_its_bytes(void)
{
    struct pair pair = connected_pair();
    struct operation *send = start_send(pair.own, "hello", 5);

    CHECK_EQUAL(wait_for(send), 0);
    CHECK_EQUAL(send->bytes, 5);
    peer_expect(pair.peer, "hello", 5);
}

static void an_empty_send_completes(void)
{
    struct pair pair = connected_pair();
    struct operation *send = start_send(pair.own, "", 0);

    CHECK_EQUAL(wait_for(send), 0);
    CHECK_EQUAL(send->bytes, 0);
    wait_for(start_send(pair.own, "after", 5));
    peer_expect(pair.peer, "after", 5);
}

static void many_small_sends_keep_their_order(void)
{
    struct pair pair = connected_pair();

    for (size_t i = 0; i < 2000; i++)
        CHECK_EQUAL(wait_for(start_send_pattern(pair.own, 7, 7 * i)), 0);
    peer_expect_pattern(pair.peer, 14000, 0);
}

static void a_large_send_pends_until_all_of_it_is_sent(void)
{
    struct pair pair = connected_pair();
    struct operation *send = start_send_pattern(pair.own, LARGE, 0);

    CHECK_EQUAL(send->how, PENDING);
    CHECK_EQUAL(pump(50), 0); /* the peer does not read yet */
    peer_expect_pattern(pair.peer, LARGE, 0);
    CHECK_EQUAL(wait_for(send), 0);
    CHECK_EQUAL(send->bytes, LARGE);
    CHECK_EQUAL(send->packets, 1);
}

/* `count` buffers of differing sizes, some empty, that together are one stretch of the pattern. */
static size_t cut(WSABUF *buffers, size_t count, char *data, size_t size)
{
    size_t done = 0;

    pattern(data, size, 0);
    for (size_t i = 0; i < count; i++) {
        size_t step = i + 1 == count ? size - done : random_below((uint32_t)(2 * size / count)) * (i % 7 != 3);

        if (step > size - done)
            step = size - done;
        buffers[i].buf = data + done;
        buffers[i].len = (ULONG)step;
        done += step;
    }
    return done;
}

static void expect_gathered(size_t count, size_t size)
{
    struct pair pair = connected_pair();
    WSABUF *buffers = malloc(count * sizeof *buffers);
    struct operation *send, *holder = operation_new(pair.own, size);

    holder->ended = 1; /* it only holds the data until the case ends */
    CHECK_EQUAL(cut(buffers, count, holder->data, size), size);
    send = start_send_from(pair.own, buffers, (DWORD)count);
    free(buffers);
    CHECK(send->how != FAILED);
    peer_expect_pattern(pair.peer, size, 0);
    CHECK_EQUAL(wait_for(send), 0);
    CHECK_EQUAL(send->bytes, size);
}

static void a_send_gathers_two_buffers(void)
{
    expect_gathered(2, 100);
}

static void a_send_gathers_sixteen_buffers(void)
{
    expect_gathered(16, 10000);
}

static void a_send_gathers_a_thousand_buffers(void)
{
    expect_gathered(1024, 50000);
}

/* It stops in the middle of some buffer, often, and must go on there. */
static void a_large_gather_goes_on_in_the_middle_of_a_buffer(void)
{
    expect_gathered(19, MEDIUM + 12345);
}

static void a_large_gather_of_a_thousand_buffers_arrives_whole(void)
{
    expect_gathered(1000, MEDIUM + 54321);
}

static void a_large_send_through_small_buffers_arrives_whole(void)
{
    struct pair pair = connected_pair();
    struct operation *send;

    peer_small_buffers(pair.peer);
    peer_small_buffers(pair.own);
    send = start_send_pattern(pair.own, 60001, 0);
    peer_expect_pattern(pair.peer, 60001, 0);
    CHECK_EQUAL(wait_for(send), 0);
    CHECK_EQUAL(send->bytes, 60001);
}

static void a_send_to_a_peer_that_has_reset_fails(void)
{
    struct pair pair = connected_pair();
    int status = 0;

    peer_reset(pair.peer);
    for (int i = 0; i < 100 && status == 0; i++) /* the first ones may still find room */
        status = wait_for(start_send(pair.own, "hello", 5));
    CHECK(is_reset(status));
}

static void a_pending_send_fails_when_the_peer_resets(void)
{
    struct pair pair = connected_pair();
    struct operation *send = start_send_pattern(pair.own, LARGE, 0);

    pump(10);
    peer_reset(pair.peer);
    CHECK(is_reset(wait_for(send)));
    CHECK(send->bytes < LARGE);
}

static void a_cancelled_send_says_that_it_was_aborted(void)
{
    struct pair pair = connected_pair();
    struct operation *send = start_send_pattern(pair.own, LARGE, 0);

    pump(10);
    CHECK(cancel(pair.own, send));
    CHECK_EQUAL(wait_for(send), ERROR_OPERATION_ABORTED);
    CHECK(send->bytes < LARGE);
}

static void a_send_after_our_own_end_fails(void)
{
    struct pair pair = connected_pair();

    CHECK_EQUAL(iocp_shutdown_send(pair.own), 0);
    CHECK(wait_for(start_send(pair.own, "late", 4)) != 0);
}

static void a_receive_completes_while_a_send_pends(void)
{
    struct pair pair = connected_pair();
    struct operation *send = start_send_pattern(pair.own, MEDIUM, 0), *receive = start_receive(pair.own, 10);

    pump_all();
    CHECK(!send->ended && !receive->ended);
    for (int i = 0; i < 20; i++) {
        CHECK_EQUAL(peer_send_some(pair.peer, "x", 1), 1);
        CHECK_EQUAL(wait_for(receive), 0);
        restart_receive(receive);
    }
    CHECK(!send->ended);
    peer_expect_pattern(pair.peer, MEDIUM, 0);
    CHECK_EQUAL(wait_for(send), 0);
}

static void large_streams_flow_both_ways_at_once(void)
{
    struct pair a = connected_pair(), b = connected_pair();
    struct operation *sends[2], *receive = start_receive(b.own, 30000);
    size_t sent = 0, got = 0;
    char chunk[20000];

    sends[0] = start_send_pattern(a.own, MEDIUM, 0);
    sends[1] = start_send_pattern(b.own, MEDIUM, 0);
    while (got < 2000000) {
        pattern(chunk, sizeof chunk, sent);
        sent += peer_send_some(b.peer, chunk, sizeof chunk);
        CHECK_EQUAL(wait_for(receive), 0);
        CHECK(is_pattern(receive->data, receive->bytes, got));
        got += receive->bytes;
        restart_receive(receive);
    }
    peer_expect_pattern(b.peer, MEDIUM, 0);
    peer_expect_pattern(a.peer, MEDIUM, 0);
    CHECK_EQUAL(wait_for(sends[0]), 0);
    CHECK_EQUAL(wait_for(sends[1]), 0);
}

const struct test_case send_cases[] = {
    CASE(a_small_send_completes_with_all_its_bytes),
    CASE(an_empty_send_completes),
    CASE(many_small_sends_keep_their_order),
    CASE(a_large_send_pends_until_all_of_it_is_sent),
    CASE(a_send_gathers_two_buffers),
    CASE(a_send_gathers_sixteen_buffers),
    CASE(a_send_gathers_a_thousand_buffers),
    CASE(a_large_gather_goes_on_in_the_middle_of_a_buffer),
    CASE(a_large_gather_of_a_thousand_buffers_arrives_whole),
    CASE(a_large_send_through_small_buffers_arrives_whole),
    CASE(a_send_to_a_peer_that_has_reset_fails),
    CASE(a_pending_send_fails_when_the_peer_resets),
    CASE(a_cancelled_send_says_that_it_was_aborted),
    CASE(a_send_after_our_own_end_fails),
    CASE(a_receive_completes_while_a_send_pends),
    CASE(large_streams_flow_both_ways_at_once),
    END_OF_CASES,
};
