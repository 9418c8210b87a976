/* ConnectEx: success, refusal, and a connect that nobody answers. */
#include "contract.h"

static SOCKET bound_own(int family)
{
    SOCKET s = new_own(family);

    CHECK_EQUAL(iocp_bind_for_connect(s, family), 0);
    return s;
}

static void a_connect_completes_and_data_flows_both_ways(void)
{
    struct address at, peer_at;
    SOCKET listener = peer_listen(&at, AF_INET, 5), s = bound_own(AF_INET), peer;
    struct operation *connect = start_connect(s, &at), *receive;

    CHECK_EQUAL(wait_for(connect), 0);
    CHECK_EQUAL(iocp_update_connected(s), 0);
    peer = peer_accept(listener);
    peer_at = peer_address_of(s); /* fails on Windows without the update */
    CHECK(memcmp(&peer_at.name, &at.name, sizeof(struct sockaddr_in)) == 0);
    receive = start_receive(s, 10);
    CHECK(start_send(s, "hello", 5)->how != FAILED);
    peer_expect(peer, "hello", 5);
    peer_send(peer, "world", 5);
    CHECK_EQUAL(wait_for(receive), 0);
    CHECK(receive->bytes == 5 && memcmp(receive->data, "world", 5) == 0);
}

static void a_connected_socket_can_finish_sending(void)
{
    struct address at;
    SOCKET listener = peer_listen(&at, AF_INET, 5), s = bound_own(AF_INET), peer;
    char byte;

    CHECK_EQUAL(wait_for(start_connect(s, &at)), 0);
    CHECK_EQUAL(iocp_update_connected(s), 0);
    peer = peer_accept(listener);
    CHECK_EQUAL(iocp_shutdown_send(s), 0);
    CHECK_EQUAL(peer_receive_next(peer, &byte, 1), PEER_END);
}

static void a_refused_connect_says_so(void)
{
    struct address at = refusing_address();
    SOCKET s = bound_own(AF_INET);

    CHECK_EQUAL(wait_for(start_connect(s, &at)), WSAECONNREFUSED);
}

/* FILE_SKIP_COMPLETION_PORT_ON_SUCCESS is of starts that succeed: one that pends posts, however it ends. */
static void with_skipping_a_connect_that_pends_posts_one_packet(void)
{
    struct address at;
    struct operation *connect;

    skipping = 1;
    peer_listen(&at, AF_INET, 5);
    connect = start_connect(bound_own(AF_INET), &at);
    CHECK_EQUAL(wait_for(connect), 0);
    pump_all();
    CHECK_EQUAL(connect->packets, connect->how == PENDING);
}

static void with_skipping_a_refused_connect_that_pends_posts_one_packet(void)
{
    struct address at = refusing_address();
    struct operation *connect;

    skipping = 1;
    connect = start_connect(bound_own(AF_INET), &at);
    CHECK(wait_for(connect) != 0);
    pump_all();
    CHECK_EQUAL(connect->packets, connect->how == PENDING);
}

static void many_refused_connects_leave_nothing_behind(void)
{
    struct address at = refusing_address();

    for (int i = 0; i < 50; i++) {
        SOCKET s = bound_own(AF_INET);

        CHECK(wait_for(start_connect(s, &at)) != 0);
        close_own(s);
    }
}

/* A connect to it pends: its backlog is full. (Windows itself refuses then.) */
static struct address full_listener(void)
{
    struct address at;

    peer_listen(&at, AF_INET, 1);
    for (int i = 0; i < 4; i++)
        CHECK(peer_try_connect(peer_socket(AF_INET), &at));
    return at;
}

static int has_given_up(int status)
{
    return status == ERROR_OPERATION_ABORTED || (ON_WINDOWS && status != 0);
}

static void a_pending_connect_can_be_cancelled(void)
{
    struct address at = full_listener();
    SOCKET s = bound_own(AF_INET);
    struct operation *connect = start_connect(s, &at);

    CHECK_EQUAL(connect->how, PENDING);
    pump(0);
    cancel(s, connect);
    CHECK(has_given_up(wait_for(connect)));
}

static void closing_its_socket_ends_a_pending_connect(void)
{
    struct address at = full_listener();
    SOCKET s = bound_own(AF_INET);
    struct operation *connect = start_connect(s, &at);

    pump(0);
    close_own(s);
    CHECK(has_given_up(wait_for(connect)));
}

static void a_connect_reaches_an_ipv6_listener(void)
{
    struct address at;
    SOCKET listener, s;

    want_ipv6();
    listener = peer_listen(&at, AF_INET6, 5);
    s = bound_own(AF_INET6);
    CHECK_EQUAL(wait_for(start_connect(s, &at)), 0);
    CHECK_EQUAL(iocp_update_connected(s), 0);
    peer_accept(listener);
}

static void the_unspecified_address_is_this_machine(void)
{
    struct address at, any;
    SOCKET listener = peer_listen(&at, AF_INET, 5);
    SOCKET s = bound_own(AF_INET);
    struct operation *connect;

    any = at;
    ((struct sockaddr_in *)&any.name)->sin_addr.s_addr = htonl(INADDR_ANY);
    connect = start_connect(s, &any);
    peer_accept(listener);
    CHECK_EQUAL(wait_for(connect), 0);
}

const struct test_case connect_cases[] = {
    CASE(the_unspecified_address_is_this_machine),
    CASE(a_connect_completes_and_data_flows_both_ways),
    CASE(a_connected_socket_can_finish_sending),
    CASE(a_refused_connect_says_so),
    CASE(with_skipping_a_connect_that_pends_posts_one_packet),
    CASE(with_skipping_a_refused_connect_that_pends_posts_one_packet),
    CASE(many_refused_connects_leave_nothing_behind),
    CASE(a_pending_connect_can_be_cancelled),
    CASE(closing_its_socket_ends_a_pending_connect),
    CASE(a_connect_reaches_an_ipv6_listener),
    END_OF_CASES,
};
