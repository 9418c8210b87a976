/* AcceptEx: several at once, clients that come, wait or go too early, and listeners that end. */
#include "contract.h"

static void expect_working(SOCKET own, SOCKET peer)
{
    struct operation *receive = start_receive(own, 10);

    peer_send(peer, "ping", 4);
    CHECK_EQUAL(wait_for(receive), 0);
    CHECK(receive->bytes == 4 && memcmp(receive->data, "ping", 4) == 0);
    CHECK(start_send(own, "pong!", 5)->how != FAILED);
    peer_expect(peer, "pong!", 5);
}

/* A new client is accepted, whatever happened before. */
static void expect_accepting(SOCKET listener, const struct address *at)
{
    struct operation *accept = start_accept(listener);
    SOCKET client = peer_connect(at);

    CHECK_EQUAL(wait_for(accept), 0);
    expect_working(adopt_accepted(accept), client);
}

static void an_accept_completes_when_a_client_comes_later(void)
{
    struct address at;
    SOCKET listener = listen_own(&at, 5);
    struct operation *accept = start_accept(listener);
    SOCKET client;

    CHECK_EQUAL(accept->how, PENDING);
    CHECK_EQUAL(pump(0), 0);
    client = peer_connect(&at);
    CHECK_EQUAL(wait_for(accept), 0);
    CHECK_EQUAL(accept->bytes, 0);
    expect_working(adopt_accepted(accept), client);
}

static void an_accept_completes_for_a_client_that_waits_already(void)
{
    struct address at;
    SOCKET listener = listen_own(&at, 5), client = peer_connect(&at);
    struct operation *accept = start_accept(listener);

    CHECK_EQUAL(wait_for(accept), 0);
    expect_working(adopt_accepted(accept), client);
}

static void several_pending_accepts_take_one_client_each(void)
{
    struct address at;
    SOCKET listener = listen_own(&at, 16);
    struct operation *accepts[8];
    SOCKET clients[8];

    for (int i = 0; i < 8; i++)
        accepts[i] = start_accept(listener);
    CHECK_EQUAL(pump(0), 0);
    for (int i = 0; i < 8; i++) {
        clients[i] = peer_connect(&at);
        CHECK_EQUAL(wait_for(accepts[i]), 0); /* the oldest takes it */
        expect_working(adopt_accepted(accepts[i]), clients[i]);
    }
}

static void several_waiting_clients_are_accepted_by_several_accepts(void)
{
    struct address at;
    SOCKET listener = listen_own(&at, 16);
    struct operation *accepts[8];

    for (int i = 0; i < 8; i++)
        peer_connect(&at);
    for (int i = 0; i < 8; i++)
        accepts[i] = start_accept(listener);
    for (int i = 0; i < 8; i++) {
        CHECK_EQUAL(wait_for(accepts[i]), 0);
        adopt_accepted(accepts[i]);
    }
}

static void an_accepted_socket_knows_both_its_addresses(void)
{
    struct address at, own, client_at;
    SOCKET listener = listen_own(&at, 5), s, client;
    struct operation *accept = start_accept(listener);

    client = peer_connect(&at);
    CHECK_EQUAL(wait_for(accept), 0);
    s = adopt_accepted(accept);
    own = peer_address_of(s);
    client_at = address_of(client);
    CHECK(memcmp(&own.name, &client_at.name, sizeof(struct sockaddr_in)) == 0);
    own = address_of(s);
    CHECK(memcmp(&own.name, &at.name, sizeof(struct sockaddr_in)) == 0);
}

/* Not of a connection that was reset: it may have no name any more. */
static int is_from(SOCKET own, SOCKET client)
{
    struct address at = address_of(client);
    struct sockaddr_in name;
    socklen_t length = sizeof name;

    return getpeername(own, (struct sockaddr *)&name, &length) == 0 &&
           memcmp(&name, &at.name, sizeof name) == 0;
}

/* Linux hands the dead connection out, or not at all: the accept then takes the next client. Windows fails the accept with
 * WSAECONNRESET, wine with WSAENOTCONN, and not always before the next client comes (wine 10): that client then waits
 * for the next accept. */
static void a_client_that_resets_before_the_accept_leaves_the_listener_working(void)
{
    struct address at;
    SOCKET listener = listen_own(&at, 5), client, own = INVALID_SOCKET;
    struct operation *accept;

    peer_reset(peer_connect(&at));
    accept = start_accept(listener);
    pump_all();
    client = peer_connect(&at);
    if (wait_for(accept) == 0)
        own = adopt_accepted(accept);
    else
        CHECK(accept->status == WSAENOTCONN || is_reset(accept->status));
    if (own == INVALID_SOCKET || !is_from(own, client)) {
        accept = start_accept(listener);
        CHECK_EQUAL(wait_for(accept), 0);
        own = adopt_accepted(accept);
        CHECK(is_from(own, client));
    }
    expect_working(own, client);
    expect_accepting(listener, &at);
}

static void a_client_that_resets_at_once_leaves_the_listener_working(void)
{
    struct address at;
    SOCKET listener = listen_own(&at, 5);
    struct operation *accept = start_accept(listener);

    pump_all();
    peer_reset(peer_connect(&at));
    CHECK(wait_for(accept) == 0 || accept->status == WSAENOTCONN || is_reset(accept->status));
    expect_accepting(listener, &at);
}

static void closing_a_listener_ends_each_of_its_accepts(void)
{
    struct address at;
    SOCKET listener = listen_own(&at, 5);
    struct operation *accepts[4];

    for (int i = 0; i < 4; i++)
        accepts[i] = start_accept(listener);
    pump_all();
    close_own(listener);
    for (int i = 0; i < 4; i++)
        CHECK_EQUAL(wait_for(accepts[i]), ERROR_OPERATION_ABORTED);
}

static void the_address_of_a_closed_listener_is_free_again(void)
{
    struct address at;
    SOCKET listener = listen_own(&at, 5), again;
    struct operation *accept = start_accept(listener);

    close_own(listener);
    wait_for(accept);
    again = new_own(AF_INET);
    CHECK_EQUAL(bind(again, (struct sockaddr *)&at.name, at.length), 0);
    CHECK_EQUAL(listen(again, 5), 0);
    expect_accepting(again, &at);
}

static void a_cancelled_accept_leaves_the_others_pending(void)
{
    struct address at;
    SOCKET listener = listen_own(&at, 5);
    struct operation *first = start_accept(listener), *second = start_accept(listener), *third = start_accept(listener);

    pump_all();
    CHECK(cancel(listener, second));
    CHECK_EQUAL(wait_for(second), ERROR_OPERATION_ABORTED);
    peer_connect(&at);
    peer_connect(&at);
    CHECK_EQUAL(wait_for(first), 0);
    CHECK_EQUAL(wait_for(third), 0);
}

static void an_accept_started_after_the_last_one_was_cancelled_completes(void)
{
    struct address at;
    SOCKET listener = listen_own(&at, 5);
    struct operation *first = start_accept(listener), *last = start_accept(listener), *next;

    pump_all();
    CHECK(cancel(listener, last));
    next = start_accept(listener);
    CHECK_EQUAL(wait_for(last), ERROR_OPERATION_ABORTED);
    peer_connect(&at);
    peer_connect(&at);
    CHECK_EQUAL(wait_for(first), 0);
    CHECK_EQUAL(wait_for(next), 0);
}

static void closing_a_listener_ends_an_accept_started_after_a_cancelled_one(void)
{
    struct address at;
    SOCKET listener = listen_own(&at, 5);
    struct operation *first = start_accept(listener), *last = start_accept(listener), *next;

    CHECK(cancel(listener, last));
    CHECK_EQUAL(wait_for(last), ERROR_OPERATION_ABORTED);
    next = start_accept(listener);
    pump_all();
    close_own(listener);
    CHECK_EQUAL(wait_for(first), ERROR_OPERATION_ABORTED);
    CHECK_EQUAL(wait_for(next), ERROR_OPERATION_ABORTED);
}

static void accepting_goes_on_after_all_accepts_were_cancelled(void)
{
    struct address at;
    SOCKET listener = listen_own(&at, 5);
    struct operation *accept = start_accept(listener);

    CHECK(cancel(listener, NULL));
    CHECK_EQUAL(wait_for(accept), ERROR_OPERATION_ABORTED);
    expect_accepting(listener, &at);
}

static void a_listener_of_both_families_takes_an_ipv4_and_an_ipv6_client(void)
{
    SOCKET listener, client;
    struct sockaddr_in6 any;
    struct address at, v4, v6;
    struct operation *accept;
    int off = 0;

    want_ipv6();
    listener = new_own(AF_INET6);
    memset(&any, 0, sizeof any);
    any.sin6_family = AF_INET6;
    CHECK_EQUAL(setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, (const char *)&off, sizeof off), 0);
    CHECK_EQUAL(bind(listener, (struct sockaddr *)&any, sizeof any), 0);
    CHECK_EQUAL(listen(listener, 5), 0);
    at = address_of(listener);
    v4 = loopback_address(AF_INET, &at);
    v6 = loopback_address(AF_INET6, &at);
    accept = start_accept(listener);
    client = peer_connect(&v4);
    CHECK_EQUAL(wait_for(accept), 0);
    expect_working(adopt_accepted(accept), client);
    accept = start_accept(listener);
    client = peer_connect(&v6);
    CHECK_EQUAL(wait_for(accept), 0);
    expect_working(adopt_accepted(accept), client);
}

static void many_clients_come_and_go(void)
{
    struct address at;
    SOCKET listener = listen_own(&at, 5);

    for (int i = 0; i < 200; i++) {
        struct operation *accept = start_accept(listener);
        SOCKET client = peer_connect(&at), s;

        CHECK_EQUAL(wait_for(accept), 0);
        s = adopt_accepted(accept);
        if (i % 2 == 0)
            peer_reset(client);
        else
            peer_close(client);
        wait_for(start_receive(s, 10));
        close_own(s);
    }
}

const struct test_case accept_cases[] = {
    CASE(an_accept_completes_when_a_client_comes_later),
    CASE(an_accept_completes_for_a_client_that_waits_already),
    CASE(several_pending_accepts_take_one_client_each),
    CASE(several_waiting_clients_are_accepted_by_several_accepts),
    CASE(an_accepted_socket_knows_both_its_addresses),
    CASE(a_client_that_resets_before_the_accept_leaves_the_listener_working),
    CASE(a_client_that_resets_at_once_leaves_the_listener_working),
    CASE(closing_a_listener_ends_each_of_its_accepts),
    CASE(the_address_of_a_closed_listener_is_free_again),
    CASE(a_cancelled_accept_leaves_the_others_pending),
    CASE(an_accept_started_after_the_last_one_was_cancelled_completes),
    CASE(closing_a_listener_ends_an_accept_started_after_a_cancelled_one),
    CASE(accepting_goes_on_after_all_accepts_were_cancelled),
    CASE(a_listener_of_both_families_takes_an_ipv4_and_an_ipv6_client),
    CASE(many_clients_come_and_go),
    END_OF_CASES,
};
