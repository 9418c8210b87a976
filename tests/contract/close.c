/* closesocket: what pends still ends, the next owner of the number hears nothing of it, and no byte is lost. */
#include "contract.h"

enum { MEDIUM = 4 << 20, MANY = 500 };

static void closing_a_socket_ends_its_pending_receive(void)
{
    struct pair pair = connected_pair();
    struct operation *receive = start_receive(pair.own, 10);

    pump_all();
    close_own(pair.own);
    CHECK(is_closed_under(wait_for(receive)));
    CHECK_EQUAL(receive->packets, 1);
}

static void closing_a_socket_ends_a_receive_started_just_before(void)
{
    struct pair pair = connected_pair();
    struct operation *receive = start_receive(pair.own, 10);

    close_own(pair.own);
    CHECK(is_closed_under(wait_for(receive)));
}

/* wine 8 gives no packet for a send that pends when its socket is closed: there it is cancelled first. */
static void close_with_pending_send(SOCKET own, struct operation *send)
{
    if (ON_WINDOWS) {
        cancel(own, send);
        wait_for(send);
    }
    close_own(own);
}

static void closing_a_socket_ends_its_pending_send(void)
{
    struct pair pair = connected_pair();
    struct operation *send = start_send_pattern(pair.own, MEDIUM * 4, 0), *receive = start_receive(pair.own, 10);

    pump_all();
    CHECK(!send->ended);
    close_with_pending_send(pair.own, send);
    CHECK_EQUAL(wait_for(send), ERROR_OPERATION_ABORTED);
    CHECK(is_closed_under(wait_for(receive)));
}

/* The same number at once, on Linux: whatever was started for the old socket must not touch the new one. */
static void the_next_owner_of_a_number_is_undisturbed(int dequeue_before)
{
    for (int i = 0; i < 20; i++) {
        struct pair old = connected_pair(), new;
        struct operation *stale = start_receive(old.own, 100), *lost = start_send_pattern(old.own, 100, 0), *receive;

        if (dequeue_before)
            pump_all();
        close_own(old.own);
        new = connected_pair();
        receive = start_receive(new.own, 100);
        peer_send(new.peer, "for the new one", 15);
        CHECK_EQUAL(wait_for(receive), 0);
        CHECK(receive->bytes == 15 && memcmp(receive->data, "for the new one", 15) == 0);
        CHECK_EQUAL(wait_for(start_send(new.own, "from the new one", 16)), 0);
        peer_expect(new.peer, "from the new one", 16);
        CHECK(is_closed_under(wait_for(stale)));
        wait_for(lost);
        close_own(new.own);
    }
}

static void a_reused_number_hears_nothing_of_pending_operations(void)
{
    the_next_owner_of_a_number_is_undisturbed(1);
}

static void a_reused_number_hears_nothing_of_operations_not_yet_submitted(void)
{
    the_next_owner_of_a_number_is_undisturbed(0);
}

static void a_packet_that_nobody_has_dequeued_outlives_its_socket(void)
{
    struct pair pair;
    struct operation *send;

    skipping = 0;
    pair = connected_pair();
    send = start_send(pair.own, "hello", 5);
    peer_expect(pair.peer, "hello", 5); /* it is sent; on epoll its packet waited from the start */
    close_own(pair.own);
    CHECK_EQUAL(wait_for(send), 0);
    CHECK_EQUAL(send->bytes, 5);
}

static void packets_of_a_closed_socket_arrive_with_its_own_key(void)
{
    struct pair old, new;
    struct operation *stale, *fresh;

    skipping = 0;
    old = connected_pair();
    stale = start_receive(old.own, 10);
    pump_all();
    close_own(old.own);
    new = connected_pair();
    fresh = start_send(new.own, "x", 1);
    CHECK(is_closed_under(wait_for(stale))); /* wait_for compares the key */
    CHECK_EQUAL(wait_for(fresh), 0);
}

static void a_closed_socket_sends_its_data_and_an_end(void)
{
    struct pair pair = connected_pair();
    char byte;

    CHECK_EQUAL(wait_for(start_send_pattern(pair.own, 50000, 0)), 0);
    close_own(pair.own);
    peer_expect_pattern(pair.peer, 50000, 0);
    CHECK_EQUAL(peer_receive_next(pair.peer, &byte, 1), PEER_END);
}

/* wine 8 receives an end where a reset has come, but its first send fails; after a real end it would not. */
static void expect_reset(SOCKET peer)
{
    char byte = 0;
    int result = peer_receive_next(peer, &byte, 1);

    if (ON_WINDOWS && result == PEER_END)
        CHECK_EQUAL(peer_send_some(peer, &byte, 1), 0);
    else
        CHECK_EQUAL(result, PEER_RESET);
}

static void a_socket_with_linger_zero_resets(void)
{
    struct pair pair = connected_pair();

    iocp_linger_zero(pair.own);
    close_own(pair.own);
    expect_reset(pair.peer);
}

static void a_socket_with_a_cancelled_receive_and_linger_zero_resets(void)
{
    struct pair pair = connected_pair();
    struct operation *receive = start_receive(pair.own, 10);

    pump_all();
    iocp_linger_zero(pair.own);
    cancel(pair.own, NULL);
    wait_for(receive);
    close_own(pair.own);
    expect_reset(pair.peer);
}

/* Closing with unread input would destroy what was sent: finish sending, discard input to its end, then close. */
static void closing_in_order_loses_nothing_though_input_was_unread(void)
{
    struct pair pair = connected_pair();
    struct operation *send, *discard;

    peer_send(pair.peer, "unread", 6);
    send = start_send_pattern(pair.own, MEDIUM, 0);
    CHECK(send->how != FAILED);
    peer_expect_pattern(pair.peer, MEDIUM - 300000, 0);
    CHECK_EQUAL(wait_for(send), 0);
    CHECK_EQUAL(iocp_shutdown_send(pair.own), 0);
    discard = start_receive(pair.own, 1000);
    peer_expect_pattern(pair.peer, 300000, MEDIUM - 300000);
    peer_send(pair.peer, "more", 4);
    peer_finish(pair.peer);
    while (wait_for(discard) == 0 && discard->bytes > 0)
        restart_receive(discard);
    CHECK_EQUAL(discard->status, 0);
    close_own(pair.own);
}

static void a_half_closed_connection_still_carries_the_other_direction(void)
{
    struct pair pair = connected_pair();
    struct operation *receive = start_receive(pair.own, 10);
    char byte;

    peer_finish(pair.peer);
    CHECK_EQUAL(wait_for(receive), 0);
    CHECK_EQUAL(receive->bytes, 0);
    CHECK(start_send_pattern(pair.own, MEDIUM, 0)->how != FAILED);
    peer_expect_pattern(pair.peer, MEDIUM, 0);
    CHECK_EQUAL(iocp_shutdown_send(pair.own), 0);
    CHECK_EQUAL(peer_receive_next(pair.peer, &byte, 1), PEER_END);
}

static void finishing_to_send_posts_no_packet(void)
{
    struct pair pair = connected_pair();
    char byte;

    CHECK_EQUAL(iocp_shutdown_send(pair.own), 0);
    CHECK_EQUAL(peer_receive_next(pair.peer, &byte, 1), PEER_END); /* pumps: a packet of no operation fails there */
    CHECK_EQUAL(pump(10), 0);
}

static void five_hundred_sockets_echo_at_once(void)
{
    static struct pair pairs[MANY];
    static struct operation *receives[MANY];

    want_descriptors(2 * MANY + 50);
    for (int i = 0; i < MANY; i++) {
        pairs[i] = connected_pair();
        receives[i] = start_receive(pairs[i].own, 100);
    }
    for (int i = 0; i < MANY; i++)
        CHECK_EQUAL(peer_send_some(pairs[i].peer, &pairs[i], sizeof pairs[i]), sizeof pairs[i]);
    for (int i = 0; i < MANY; i++) {
        CHECK_EQUAL(wait_for(receives[i]), 0);
        CHECK(start_send(pairs[i].own, receives[i]->data, receives[i]->bytes)->how != FAILED);
    }
    for (int i = 0; i < MANY; i++)
        peer_expect(pairs[i].peer, &pairs[i], sizeof pairs[i]);
}

static void a_trim_after_many_were_closed_harms_neither_open_nor_new_sockets(void)
{
    static SOCKET many[MANY];
    struct pair open = connected_pair(), new;
    struct operation *receive = start_receive(open.own, 10);

    want_descriptors(MANY + 50);
    for (int i = 0; i < MANY; i++)
        many[i] = new_own(AF_INET);
    for (int i = 0; i < MANY; i++)
        close_own(many[i]);
    iocp_trim(port);
    peer_send(open.peer, "open", 4);
    CHECK_EQUAL(wait_for(receive), 0);
    new = connected_pair();
    receive = start_receive(new.own, 10);
    peer_send(new.peer, "new", 3);
    CHECK_EQUAL(wait_for(receive), 0);
    CHECK(memcmp(receive->data, "new", 3) == 0);
}

const struct test_case close_cases[] = {
    CASE(closing_a_socket_ends_its_pending_receive),
    CASE(closing_a_socket_ends_a_receive_started_just_before),
    CASE(closing_a_socket_ends_its_pending_send),
    CASE(a_reused_number_hears_nothing_of_pending_operations),
    CASE(a_reused_number_hears_nothing_of_operations_not_yet_submitted),
    CASE(a_packet_that_nobody_has_dequeued_outlives_its_socket),
    CASE(packets_of_a_closed_socket_arrive_with_its_own_key),
    CASE(a_closed_socket_sends_its_data_and_an_end),
    CASE(a_socket_with_linger_zero_resets),
    CASE(a_socket_with_a_cancelled_receive_and_linger_zero_resets),
    CASE(closing_in_order_loses_nothing_though_input_was_unread),
    CASE(a_half_closed_connection_still_carries_the_other_direction),
    CASE(finishing_to_send_posts_no_packet),
    CASE(five_hundred_sockets_echo_at_once),
    CASE(a_trim_after_many_were_closed_harms_neither_open_nor_new_sockets),
    END_OF_CASES,
};
