/* Listening sockets that several ports accept from, as those of several processes do: accepts whose events post. */
#include "contract.h"

enum { ACCEPTS = 4 };

/* One port's side of the shared socket. */
struct sharer {
    HANDLE port;
    SOCKET listener;
    struct shared_accept {
        OVERLAPPED overlapped; /* first */
        IOCP_EVENT event;
        SOCKET placeholder;
        int in_flight;
        char addresses[2 * (sizeof(SOCKADDR_STORAGE) + 16)];
    } accepts[ACCEPTS];
    int served;
    int cancelled;
};

enum { KEY = 4711 };

static void start(struct sharer *sharer, struct shared_accept *accept)
{
    DWORD bytes = 0, room = sizeof accept->addresses / 2;

    CHECK_EQUAL(iocp_accept_placeholder(AF_INET, &accept->placeholder), 0);
    memset(&accept->overlapped, 0, sizeof accept->overlapped);
    iocp_event_use(&accept->event);
    CHECK(AcceptEx(sharer->listener, accept->placeholder, accept->addresses, 0, room, room, &bytes,
                   &accept->overlapped) ||
          WSAGetLastError() == WSA_IO_PENDING);
    accept->in_flight = 1;
}

static void share(struct sharer *sharer, HANDLE to, SOCKET listener)
{
    memset(sharer, 0, sizeof *sharer);
    sharer->port = to;
    sharer->listener = listener;
    CHECK_EQUAL(iocp_associate_shared(listener, to, KEY), 0);
    for (int i = 0; i < ACCEPTS; i++) {
        CHECK_EQUAL(iocp_event_open(&sharer->accepts[i].event, to, KEY, &sharer->accepts[i].overlapped), 0);
        start(sharer, &sharer->accepts[i]);
    }
}

static void end(struct sharer *sharer, struct shared_accept *accept)
{
    OVERLAPPED_ENTRY entry;
    SOCKET s = iocp_accepted(accept->placeholder, &accept->overlapped);
    int status;

    CHECK(accept->in_flight);
    accept->in_flight = 0;
    memset(&entry, 0, sizeof entry);
    entry.Internal = accept->overlapped.Internal;
    status = status_of(&entry);
    CHECK(status == 0 || status == ERROR_OPERATION_ABORTED);
    if (status != 0) {
        sharer->cancelled++;
        if (accept->placeholder != INVALID_SOCKET)
            closesocket(accept->placeholder);
        return;
    }
    sharer->served++;
    CHECK_EQUAL(iocp_update_accepted(s, sharer->listener), 0);
    CHECK(CreateIoCompletionPort((HANDLE)(ULONG_PTR)s, sharer->port, KEY + 1, 0) == sharer->port);
    CHECK_EQUAL(closesocket(s), 0);
}

/* Dequeues one batch of its port; every packet must be of one of its own accepts. */
static ULONG serve(struct sharer *sharer, DWORD milliseconds, int again)
{
    OVERLAPPED_ENTRY entries[16];
    ULONG count = 0;

    if (!GetQueuedCompletionStatusEx(sharer->port, entries, 16, &count, milliseconds, FALSE)) {
        CHECK_EQUAL(GetLastError(), WAIT_TIMEOUT);
        return 0;
    }
    for (ULONG i = 0; i < count; i++) {
        struct shared_accept *accept = (struct shared_accept *)entries[i].lpOverlapped;

        CHECK_EQUAL(entries[i].lpCompletionKey, KEY);
        CHECK(accept >= sharer->accepts && accept < sharer->accepts + ACCEPTS);
        end(sharer, accept);
        if (again)
            start(sharer, accept);
    }
    return count;
}

/* In this order: an accept is cancelled by itself, the socket closed, all packets taken, then the events. */
static void leave(struct sharer *sharer)
{
    uint64_t deadline = patience();

    for (int i = 0; i < ACCEPTS; i++) {
        if (sharer->accepts[i].in_flight)
            CancelIoEx((HANDLE)(ULONG_PTR)sharer->listener, &sharer->accepts[i].overlapped);
    }
    CHECK_EQUAL(closesocket(sharer->listener), 0);
    for (int i = 0; i < ACCEPTS; i++) {
        while (sharer->accepts[i].in_flight) {
            CHECK(iocp_now(port) < deadline);
            serve(sharer, 10, 0);
        }
    }
    for (int i = 0; i < ACCEPTS; i++)
        iocp_event_close(&sharer->accepts[i].event);
    CHECK_EQUAL(serve(sharer, 0, 0), 0);
}

static void connect_and_serve(struct sharer *first, struct sharer *second, const struct address *at, int clients)
{
    uint64_t deadline = patience();
    int before = first->served + second->served;

    for (int i = 0; i < clients; i++) {
        peer_connect(at);
        while (first->served + second->served <= before + i) {
            CHECK(iocp_now(port) < deadline);
            serve(first, 1, 1);
            serve(second, 1, 1);
        }
    }
    CHECK_EQUAL(first->served + second->served, before + clients);
}

static void two_ports_that_share_a_listener_serve_each_client_once(void)
{
    struct sharer first, second;
    struct address at;
    SOCKET listener = peer_listen(&at, AF_INET, 50);
    HANDLE other = another_port();

    share(&first, port, duplicate(listener));
    share(&second, other, duplicate(listener));
    connect_and_serve(&first, &second, &at, 50);
    leave(&first);
    leave(&second);
    CHECK_EQUAL(first.cancelled, ACCEPTS);
    CHECK_EQUAL(second.cancelled, ACCEPTS);
    CHECK(CloseHandle(other));
}

static void a_port_that_leaves_a_shared_listener_takes_no_accept_of_the_other(void)
{
    struct sharer first, second;
    struct address at;
    SOCKET listener = peer_listen(&at, AF_INET, 50);
    HANDLE other = another_port();

    share(&first, other, duplicate(listener));
    share(&second, port, duplicate(listener));
    leave(&first);
    CHECK(CloseHandle(other));
    for (int i = 0; i < 10; i++) {
        peer_connect(&at);
        while (second.served <= i)
            serve(&second, 1000, 1);
    }
    CHECK_EQUAL(second.cancelled, 0);
    leave(&second);
}

/* On Linux with the descriptor it had before, of a socket that was never closed. */
static void a_port_that_has_left_a_listener_can_share_it_again(void)
{
    struct address at;
    SOCKET listener = peer_listen(&at, AF_INET, 50);

    for (int i = 0; i < 10; i++) {
        struct sharer sharer;

        share(&sharer, port, duplicate(listener));
        peer_connect(&at);
        while (sharer.served == 0)
            CHECK(serve(&sharer, 10000, 1) > 0);
        leave(&sharer);
    }
}

/* Only one can, and it may, on Windows too, if the others share. */
static void a_port_that_owns_the_listener_gets_no_packet_of_one_that_shares_it(void)
{
    struct sharer sharer;
    struct address at;
    SOCKET own = listen_own(&at, 50);
    struct operation *accept;
    HANDLE other = another_port();

    share(&sharer, other, duplicate(own));
    for (int i = 0; i < 10; i++) {
        peer_connect(&at);
        while (sharer.served <= i)
            CHECK(serve(&sharer, 10000, 1) > 0);
        CHECK_EQUAL(pump(0), 0);
    }
    leave(&sharer);
    accept = start_accept(own);
    peer_connect(&at);
    CHECK_EQUAL(wait_for(accept), 0); /* by a packet with its own key */
    CHECK(CloseHandle(other));
}

static void an_event_that_is_not_open_closes_and_one_closes_twice(void)
{
    IOCP_EVENT event;
    OVERLAPPED overlapped;

    memset(&event, 0, sizeof event);
    iocp_event_close(&event);
    CHECK_EQUAL(iocp_event_open(&event, port, KEY, &overlapped), 0);
    iocp_event_close(&event);
    iocp_event_close(&event);
}

const struct test_case shared_cases[] = {
    CASE(two_ports_that_share_a_listener_serve_each_client_once),
    CASE(a_port_that_leaves_a_shared_listener_takes_no_accept_of_the_other),
    CASE(a_port_that_has_left_a_listener_can_share_it_again),
    CASE(a_port_that_owns_the_listener_gets_no_packet_of_one_that_shares_it),
    CASE(an_event_that_is_not_open_closes_and_one_closes_twice),
    END_OF_CASES,
};
