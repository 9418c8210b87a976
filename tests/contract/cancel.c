/* CancelIoEx: one operation, all of them, none any more. */
#include "contract.h"

enum { MEDIUM = 8 << 20 };

static void expect_nothing_to_cancel(SOCKET s, struct operation *operation_or_null)
{
    BOOL found = cancel(s, operation_or_null);

    if (ON_WINDOWS && operation_or_null == NULL && found)
        return; /* wine 8 says yes whenever all are asked for; Windows says ERROR_NOT_FOUND */
    CHECK(!found);
    CHECK_EQUAL(GetLastError(), ERROR_NOT_FOUND);
}

static void a_cancelled_receive_completes_with_aborted(void)
{
    struct pair pair = connected_pair();
    struct operation *receive = start_receive(pair.own, 10);

    pump_all();
    CHECK(cancel(pair.own, receive));
    CHECK_EQUAL(wait_for(receive), ERROR_OPERATION_ABORTED);
    CHECK_EQUAL(receive->packets, 1);
}

/* On io_uring the kernel has not even seen it yet. */
static void a_receive_can_be_cancelled_before_the_next_dequeue(void)
{
    struct pair pair = connected_pair();
    struct operation *receive = start_receive(pair.own, 10);

    CHECK(cancel(pair.own, receive));
    CHECK_EQUAL(wait_for(receive), ERROR_OPERATION_ABORTED);
}

static void a_cancelled_zero_byte_receive_completes_with_aborted(void)
{
    struct pair pair = connected_pair();
    struct operation *receive = start_receive(pair.own, 0);

    pump_all();
    CHECK(cancel(pair.own, receive));
    CHECK_EQUAL(wait_for(receive), ERROR_OPERATION_ABORTED);
}

static void cancelling_the_receive_leaves_the_send_pending(void)
{
    struct pair pair = connected_pair();
    struct operation *send = start_send_pattern(pair.own, MEDIUM, 0), *receive = start_receive(pair.own, 10);

    pump_all();
    CHECK(cancel(pair.own, receive));
    CHECK_EQUAL(wait_for(receive), ERROR_OPERATION_ABORTED);
    CHECK(!send->ended);
    peer_expect_pattern(pair.peer, MEDIUM, 0);
    CHECK_EQUAL(wait_for(send), 0);
    CHECK_EQUAL(send->bytes, MEDIUM);
}

static void cancelling_the_send_leaves_the_receive_pending(void)
{
    struct pair pair = connected_pair();
    struct operation *send = start_send_pattern(pair.own, MEDIUM, 0), *receive = start_receive(pair.own, 10);

    pump_all();
    CHECK(cancel(pair.own, send));
    CHECK_EQUAL(wait_for(send), ERROR_OPERATION_ABORTED);
    CHECK(!receive->ended);
    CHECK_EQUAL(peer_send_some(pair.peer, "x", 1), 1);
    CHECK_EQUAL(wait_for(receive), 0);
}

static void cancelling_all_ends_all(void)
{
    struct pair pair = connected_pair();
    struct operation *send = start_send_pattern(pair.own, MEDIUM, 0), *receive = start_receive(pair.own, 10);

    pump_all();
    CHECK(cancel(pair.own, NULL));
    CHECK_EQUAL(wait_for(receive), ERROR_OPERATION_ABORTED);
    CHECK_EQUAL(wait_for(send), ERROR_OPERATION_ABORTED);
}

static void cancelling_leaves_other_sockets_alone(void)
{
    struct pair a = connected_pair(), b = connected_pair();
    struct operation *cancelled = start_receive(a.own, 10), *other = start_receive(b.own, 10);

    CHECK(cancel(a.own, NULL));
    CHECK_EQUAL(wait_for(cancelled), ERROR_OPERATION_ABORTED);
    pump_all();
    CHECK(!other->ended);
    start_receive(a.own, 10);
    expect_nothing_to_cancel(a.own, other); /* it is not of that socket */
    peer_send(b.peer, "x", 1);
    CHECK_EQUAL(wait_for(other), 0);
}

static void cancelling_what_has_ended_finds_nothing(void)
{
    struct pair pair = connected_pair();
    struct operation *receive = start_receive(pair.own, 10);

    peer_send(pair.peer, "x", 1);
    CHECK_EQUAL(wait_for(receive), 0);
    expect_nothing_to_cancel(pair.own, receive);
    expect_nothing_to_cancel(pair.own, NULL);
}

static void cancelling_what_was_cancelled_and_has_ended_finds_nothing(void)
{
    struct pair pair = connected_pair();
    struct operation *receive = start_receive(pair.own, 10);

    CHECK(cancel(pair.own, receive));
    CHECK_EQUAL(wait_for(receive), ERROR_OPERATION_ABORTED);
    expect_nothing_to_cancel(pair.own, receive);
}

static void cancelling_on_a_socket_without_operations_finds_nothing(void)
{
    expect_nothing_to_cancel(new_own(AF_INET), NULL);
}

static void cancelling_twice_does_no_harm(void)
{
    struct pair pair = connected_pair();
    struct operation *receive = start_receive(pair.own, 10);

    pump_all();
    CHECK(cancel(pair.own, receive));
    if (!cancel(pair.own, receive)) /* it may have ended by then */
        CHECK_EQUAL(GetLastError(), ERROR_NOT_FOUND);
    cancel(pair.own, NULL);
    CHECK_EQUAL(wait_for(receive), ERROR_OPERATION_ABORTED);
}

static void receiving_goes_on_after_a_cancelled_receive(void)
{
    struct pair pair = connected_pair();
    struct operation *receive = start_receive(pair.own, 10);

    for (int i = 0; i < 100; i++) {
        if (i % 2 == 0)
            pump_all();
        CHECK(cancel(pair.own, receive));
        CHECK_EQUAL(wait_for(receive), ERROR_OPERATION_ABORTED);
        restart_receive(receive);
    }
    peer_send(pair.peer, "hello", 5);
    CHECK_EQUAL(wait_for(receive), 0);
    CHECK_EQUAL(receive->bytes, 5);
}

/* Cancelled as the data arrives: it comes with this receive or with the next, and never twice. */
static void a_receive_that_is_cancelled_loses_no_data(void)
{
    struct pair pair = connected_pair();
    struct operation *receive = start_receive(pair.own, 10);
    size_t got = 0;
    char byte;

    for (size_t sent = 0; sent < 500; sent++) {
        if (sent % 3 == 0)
            pump(0);
        pattern(&byte, 1, sent);
        CHECK_EQUAL(peer_send_some(pair.peer, &byte, 1), 1);
        cancel(pair.own, receive);
        if (wait_for(receive) == 0) {
            CHECK(receive->bytes > 0 && is_pattern(receive->data, receive->bytes, got));
            got += receive->bytes;
        } else {
            CHECK_EQUAL(receive->status, ERROR_OPERATION_ABORTED);
            CHECK_EQUAL(receive->bytes, 0);
        }
        restart_receive(receive);
    }
    while (got < 500) {
        CHECK_EQUAL(wait_for(receive), 0);
        CHECK(is_pattern(receive->data, receive->bytes, got));
        got += receive->bytes;
        restart_receive(receive);
    }
}

static void a_cancelled_send_tells_how_many_bytes_went_out(void)
{
    struct pair pair = connected_pair();
    struct operation *send = start_send_pattern(pair.own, MEDIUM, 0);
    size_t got = 0;
    char chunk[65536];
    int n;

    pump_all();
    CHECK(cancel(pair.own, send));
    CHECK_EQUAL(wait_for(send), ERROR_OPERATION_ABORTED);
    CHECK_EQUAL(iocp_shutdown_send(pair.own), 0);
    while ((n = peer_receive_next(pair.peer, chunk, sizeof chunk)) > 0) {
        CHECK(is_pattern(chunk, (size_t)n, got));
        got += (size_t)n;
    }
    CHECK_EQUAL(n, PEER_END);
    if (!ON_WINDOWS) /* nothing is promised there */
        CHECK_EQUAL(got, send->bytes);
}

const struct test_case cancel_cases[] = {
    CASE(a_cancelled_receive_completes_with_aborted),
    CASE(a_receive_can_be_cancelled_before_the_next_dequeue),
    CASE(a_cancelled_zero_byte_receive_completes_with_aborted),
    CASE(cancelling_the_receive_leaves_the_send_pending),
    CASE(cancelling_the_send_leaves_the_receive_pending),
    CASE(cancelling_all_ends_all),
    CASE(cancelling_leaves_other_sockets_alone),
    CASE(cancelling_what_has_ended_finds_nothing),
    CASE(cancelling_what_was_cancelled_and_has_ended_finds_nothing),
    CASE(cancelling_on_a_socket_without_operations_finds_nothing),
    CASE(cancelling_twice_does_no_harm),
    CASE(receiving_goes_on_after_a_cancelled_receive),
    CASE(a_receive_that_is_cancelled_loses_no_data),
    CASE(a_cancelled_send_tells_how_many_bytes_went_out),
    END_OF_CASES,
};
