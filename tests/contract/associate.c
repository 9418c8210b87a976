/* A socket and its port: association, keys, and which successes post a packet. */
#ifndef _WIN32
#include <fcntl.h>
#endif

#include "contract.h"

static void a_second_association_fails(void)
{
    SOCKET s = new_own(AF_INET);
    HANDLE other = another_port();

    CHECK(CreateIoCompletionPort((HANDLE)(ULONG_PTR)s, port, 1, 0) == NULL);
    CHECK_EQUAL(GetLastError(), ERROR_INVALID_PARAMETER);
    CHECK(CreateIoCompletionPort((HANDLE)(ULONG_PTR)s, other, 1, 0) == NULL);
    CHECK(CloseHandle(other));
}

static void every_packet_carries_the_key_of_its_socket(void)
{
    struct pair pairs[3];
    struct operation *receives[3];

    for (int i = 0; i < 3; i++) {
        pairs[i] = connected_pair();
        receives[i] = start_receive(pairs[i].own, 10);
    }
    for (int i = 2; i >= 0; i--) {
        peer_send(pairs[i].peer, "abc", (size_t)i + 1);
        CHECK_EQUAL(wait_for(receives[i]), 0); /* wait_for compares the key */
        CHECK_EQUAL(receives[i]->bytes, i + 1);
    }
}

static void an_inline_success_without_skipping_posts_one_packet(void)
{
    struct pair pair;
    struct operation *send;

    skipping = 0;
    pair = connected_pair();
    send = start_send(pair.own, "hello", 5);
    CHECK(send->how != FAILED);
    CHECK_EQUAL(wait_for(send), 0);
    pump_all();
    CHECK_EQUAL(send->packets, 1);
    CHECK_EQUAL(send->bytes, 5);
}

static void with_skipping_an_inline_success_posts_no_packet(void)
{
    struct pair pair;
    struct operation *send;

    skipping = 1;
    pair = connected_pair();
    send = start_send(pair.own, "hello", 5);
    wait_for(send);
    pump_all();
    CHECK_EQUAL(send->packets, send->how == PENDING); /* io_uring always pends */
    CHECK_EQUAL(send->bytes, 5);
}

static void a_failed_start_posts_no_packet(void)
{
    SOCKET s = new_own(AF_INET); /* not connected */
    struct operation *send = start_send(s, "hello", 5);

    pump_all();
    CHECK(wait_for(send) != 0);
    pump_all();
    CHECK_EQUAL(send->packets, send->how == PENDING);
}

static void an_operation_can_be_used_again_once_it_has_ended(void)
{
    struct pair pair = connected_pair();
    struct operation *receive = start_receive(pair.own, 1);

    for (char c = 'a'; c <= 'z'; c++) {
        peer_send(pair.peer, &c, 1);
        CHECK_EQUAL(wait_for(receive), 0);
        CHECK_EQUAL(receive->bytes, 1);
        CHECK(receive->data[0] == c);
        restart_receive(receive);
    }
    peer_finish(pair.peer);
    CHECK_EQUAL(wait_for(receive), 0);
}

/* io_uring would fail its operations instead of letting them wait. */
static void a_socket_that_was_non_blocking_waits_all_the_same(void)
{
    struct address at;
    SOCKET listener = peer_listen(&at, AF_INET, 1), own = iocp_socket(port, AF_INET), peer;
    struct operation *receive, *send;

    CHECK_EQUAL(connect(own, (struct sockaddr *)&at.name, at.length), 0);
    peer = peer_accept(listener);
    receive = start_receive(adopt(non_blocking(own)), 10);
    send = start_send_pattern(own, 4 << 20, 0);
    pump_all();
    CHECK(!receive->ended && !send->ended);
    CHECK_EQUAL(peer_send_some(peer, "x", 1), 1);
    peer_expect_pattern(peer, 4 << 20, 0);
    CHECK_EQUAL(wait_for(receive), 0);
    CHECK_EQUAL(wait_for(send), 0);
}

static void more_operations_end_at_once_than_any_ring_holds(void)
{
    struct pair pair = connected_pair();
    struct operation *sends[5000];

    for (int i = 0; i < 5000; i++) {
        char byte = (char)i;

        sends[i] = start_send(pair.own, &byte, 1);
        CHECK(sends[i]->how != FAILED);
    }
    for (int i = 0; i < 5000; i++) {
        char byte = (char)i;

        peer_expect(pair.peer, &byte, 1);
    }
    for (int i = 0; i < 5000; i++)
        CHECK_EQUAL(wait_for(sends[i]), 0);
}

static int is_inherited(SOCKET s)
{
#ifdef _WIN32
    DWORD flags = 0;

    CHECK(GetHandleInformation((HANDLE)s, &flags));
    return (flags & HANDLE_FLAG_INHERIT) != 0;
#else
    return !(fcntl(s, F_GETFD) & FD_CLOEXEC);
#endif
}

static void no_child_process_inherits_our_sockets(void)
{
    struct address at;
    SOCKET listener = listen_own(&at, 5);
    struct operation *accept = start_accept(listener);

    peer_connect(&at);
    CHECK_EQUAL(wait_for(accept), 0);
    CHECK(!is_inherited(listener));
    CHECK(!is_inherited(adopt_accepted(accept)));
}

static void a_socket_is_claimed_once_until_it_is_closed(void)
{
    SOCKET s = iocp_socket(port, AF_INET), again;
    HANDLE other = another_port();

    CHECK_EQUAL(iocp_claim(s, port, 1), 0);
    CHECK_EQUAL(iocp_claim(s, port, 1), ERROR_INVALID_PARAMETER);
    CHECK_EQUAL(iocp_claim(s, other, 1), ERROR_INVALID_PARAMETER);
    CHECK_EQUAL(iocp_associate_claimed(s, port, 1), 0);
    CHECK_EQUAL(iocp_claim(s, other, 1), ERROR_INVALID_PARAMETER);
    CHECK_EQUAL(closesocket(s), 0);
    again = iocp_socket(port, AF_INET); /* on Linux the same number */
    CHECK_EQUAL(iocp_claim(again, other, 1), 0);
    CHECK_EQUAL(closesocket(again), 0);
    CHECK(CloseHandle(other));
}

static void a_port_closes_with_sockets_open(void)
{
    struct address at;
    SOCKET listener = peer_listen(&at, AF_INET, 1), s = iocp_socket(port, AF_INET), again;
    HANDLE other = another_port();

    CHECK(CreateIoCompletionPort((HANDLE)(ULONG_PTR)s, other, 1, 0) == other);
    CHECK(CloseHandle(other));
    CHECK_EQUAL(connect(s, (struct sockaddr *)&at.name, at.length), 0);
    peer_accept(listener);
    CHECK_EQUAL(closesocket(s), 0);
    again = new_own(AF_INET); /* on Linux the same number, of which nothing is remembered */
    CHECK(own_in_use(again));
}

const struct test_case associate_cases[] = {
    CASE(a_second_association_fails),
    CASE(every_packet_carries_the_key_of_its_socket),
    CASE(an_inline_success_without_skipping_posts_one_packet),
    CASE(with_skipping_an_inline_success_posts_no_packet),
    CASE(a_failed_start_posts_no_packet),
    CASE(an_operation_can_be_used_again_once_it_has_ended),
    CASE(a_socket_that_was_non_blocking_waits_all_the_same),
    CASE(more_operations_end_at_once_than_any_ring_holds),
    CASE(no_child_process_inherits_our_sockets),
    CASE(a_socket_is_claimed_once_until_it_is_closed),
    CASE(a_port_closes_with_sockets_open),
    END_OF_CASES,
};
