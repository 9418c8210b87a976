/* What only Windows can show: how exactly it answers, for docs/windows_facts.toml, and that its statuses become errors
 * of Winsock. Where wine answers otherwise, the case is skipped under it and says so: nobody has run it on Windows yet.
 */
#include "contract.h"

#ifdef _WIN32

/* Some of NTSTATUS: ntstatus.h contradicts windows.h. */
static const ULONG cancelled = 0xC0000120, connection_aborted = 0xC0000241, connection_reset = 0xC000020D,
                   local_disconnect = 0xC000013B, buffer_too_small = 0xC0000023;

/* 0: this is Windows. */
static int wine_version(void)
{
    FARPROC found = GetProcAddress(GetModuleHandleW(L"ntdll.dll"), "wine_get_version");
    const char *(*version)(void) = (const char *(*)(void))(void (*)(void))found;

    return version != NULL ? atoi(version()) : 0;
}

static void not_under_wine(const char *why)
{
    if (wine_version() != 0)
        skip(why);
}

static HANDLE new_event(void)
{
    HANDLE event = CreateEventW(NULL, TRUE, FALSE, NULL);

    CHECK(event != NULL);
    return event;
}

static SOCKET plain_socket(void)
{
    return iocp_socket(NULL, AF_INET);
}

/* Before it becomes a number of Winsock's. */
static ULONG status_at_end(struct operation *op)
{
    wait_for(op);
    return (ULONG)op->overlapped.Internal;
}

/* ---- accepting ---- */

static int accept_into(SOCKET listener, SOCKET placeholder, struct operation *op, DWORD local)
{
    DWORD bytes = 0, remote = sizeof op->addresses / 2;

    return AcceptEx(listener, placeholder, op->addresses, 0, local, remote, &bytes, &op->overlapped) ? 0
                                                                                                 : WSAGetLastError();
}

static void an_accept_with_a_short_local_address_pends_and_fails_when_a_client_comes(void)
{
    struct address at;
    SOCKET listener = listen_own(&at, 5), placeholder = plain_socket();
    struct operation *accept = operation_new(listener, 0);

    CHECK_EQUAL(accept_into(listener, placeholder, accept, 3), WSA_IO_PENDING);
    CHECK_EQUAL(pump(0), 0);
    peer_connect(&at);
    CHECK_EQUAL(status_at_end(accept), buffer_too_small);
    CHECK_EQUAL(closesocket(placeholder), 0);
}

static void an_accept_into_a_bound_socket_fails_at_its_start(void)
{
    struct address at, any = loopback_address(AF_INET, NULL);
    SOCKET listener, placeholder;
    struct operation *accept;

    not_under_wine("wine lets the accept pend");
    listener = listen_own(&at, 5);
    placeholder = plain_socket();
    accept = operation_new(listener, 0);
    accept->ended = 1; /* no packet may come */
    CHECK_EQUAL(bind(placeholder, (struct sockaddr *)&any.name, any.length), 0);
    CHECK_EQUAL(accept_into(listener, placeholder, accept, sizeof accept->addresses / 2), WSAEINVAL);
    CHECK_EQUAL(pump(10), 0);
    CHECK_EQUAL(closesocket(placeholder), 0);
}

static void a_second_accept_into_the_same_socket_fails_at_its_start(void)
{
    struct address at;
    SOCKET listener = listen_own(&at, 5), placeholder = plain_socket();
    struct operation *first = operation_new(listener, 0), *second = operation_new(listener, 0);

    CHECK_EQUAL(accept_into(listener, placeholder, first, sizeof first->addresses / 2), WSA_IO_PENDING);
    second->ended = 1; /* no packet may come */
    CHECK_EQUAL(accept_into(listener, placeholder, second, sizeof second->addresses / 2), WSAEINVAL);
    CHECK_EQUAL(pump(10), 0);
    CHECK(cancel(listener, first));
    CHECK_EQUAL(wait_for(first), ERROR_OPERATION_ABORTED);
    CHECK_EQUAL(closesocket(placeholder), 0);
}

static void closing_its_placeholder_ends_an_accept(void)
{
    struct address at;
    SOCKET listener = listen_own(&at, 5), placeholder = plain_socket();
    struct operation *accept = operation_new(listener, 0);
    ULONG status;

    CHECK_EQUAL(accept_into(listener, placeholder, accept, sizeof accept->addresses / 2), WSA_IO_PENDING);
    CHECK_EQUAL(closesocket(placeholder), 0);
    status = status_at_end(accept);
    CHECK(status == cancelled || status == connection_aborted);
    CHECK_EQUAL(accept->packets, 1);
}

static void without_its_context_an_accepted_socket_does_not_know_its_peer(void)
{
    struct address at;
    SOCKADDR_STORAGE name;
    SOCKET listener;
    struct operation *accept;

    not_under_wine("wine knows the peer without the context");
    listener = listen_own(&at, 5);
    accept = start_accept(listener);
    peer_connect(&at);
    CHECK_EQUAL(wait_for(accept), 0);
    iocp_peer_name(accept->placeholder, &name);
    CHECK_EQUAL(name.ss_family, 0);
    CHECK_EQUAL(WSAGetLastError(), WSAENOTCONN);
}

/* ---- connecting ---- */

static void an_unbound_connect_fails_at_its_start(void)
{
    struct address at;
    struct operation *connect;

    peer_listen(&at, AF_INET, 5);
    connect = start_connect(new_own(AF_INET), &at);
    CHECK_EQUAL(connect->how, FAILED);
    CHECK_EQUAL(connect->status, WSAEINVAL);
}

static void a_socket_has_a_connect_time_only_once_it_is_connected(void)
{
    SOCKET s = new_own(AF_INET);

    CHECK(!iocp_was_connected(s));
    CHECK(iocp_was_connected(connected_pair().own));
}

/* ---- packets ---- */

static void a_receive_with_the_low_bit_of_its_event_set_posts_no_packet(void)
{
    struct pair pair = connected_pair();
    struct operation *receive = operation_new(pair.own, 10);
    WSABUF buffer = {10, receive->data};
    DWORD flags = 0;
    HANDLE event = new_event();

    receive->ended = 1; /* no packet may come */
    receive->overlapped.hEvent = (HANDLE)((ULONG_PTR)event | 1);
    CHECK(WSARecv(pair.own, &buffer, 1, NULL, &flags, &receive->overlapped, NULL) != 0);
    CHECK_EQUAL(WSAGetLastError(), WSA_IO_PENDING);
    peer_send(pair.peer, "hello", 5);
    CHECK(WaitForSingleObject(event, 10000) == WAIT_OBJECT_0);
    CHECK_EQUAL(receive->overlapped.InternalHigh, 5);
    CHECK_EQUAL(pump(10), 0);
    CHECK(CloseHandle(event));
}

static void notification_modes_cannot_be_cleared(void)
{
    struct pair pair;
    struct operation *send;

    skipping = 1;
    pair = connected_pair();
    CHECK(SetFileCompletionNotificationModes((HANDLE)pair.own, 0));
    send = start_send(pair.own, "hello", 5);
    CHECK_EQUAL(wait_for(send), 0);
    pump(10); /* a packet for an inline success would be one too many: it fails there */
    CHECK_EQUAL(send->packets, send->how == PENDING);
}

static void a_send_on_a_reset_connection_fails_at_its_start_and_posts_no_packet(void)
{
    struct pair pair = connected_pair();
    struct operation *send;

    peer_reset(pair.peer);
    peer_wait_readable(pair.own);
    send = start_send(pair.own, "hello", 5);
    CHECK_EQUAL(send->how, FAILED);
    CHECK_EQUAL(send->status, WSAECONNRESET);
    CHECK_EQUAL(pump(10), 0);
}

static void a_receive_on_a_reset_connection_fails_at_its_start_and_posts_no_packet(void)
{
    struct pair pair;
    struct operation *receive;

    if (wine_version() != 0 && wine_version() < 10)
        skip("wine 8 receives an end");
    pair = connected_pair();
    receive = start_receive(pair.own, 10);
    peer_reset(pair.peer);
    CHECK_EQUAL(wait_for(receive), WSAECONNRESET);
    receive = start_receive(pair.own, 10); /* once it was told */
    CHECK_EQUAL(receive->how, FAILED);
    CHECK_EQUAL(receive->status, WSAECONNRESET);
    CHECK_EQUAL(pump(10), 0);
}

/* ---- what ends what pends ---- */

static void a_pending_receive_ends_with_the_status_of_a_reset(void)
{
    struct pair pair = connected_pair();
    struct operation *receive = start_receive(pair.own, 10);

    CHECK_EQUAL(receive->how, PENDING);
    peer_reset(pair.peer);
    CHECK_EQUAL(status_at_end(receive), connection_reset);
}

static void closing_its_socket_ends_a_pending_receive_as_aborted_or_disconnected(void)
{
    struct pair pair;
    struct operation *receive;
    ULONG status;

    not_under_wine("wine says STATUS_HANDLES_CLOSED");
    pair = connected_pair();
    receive = start_receive(pair.own, 10);
    close_own(pair.own);
    status = status_at_end(receive);
    CHECK(status == connection_aborted || status == local_disconnect || status == cancelled);
}

static void a_second_cancel_finds_nothing_though_the_packet_still_waits(void)
{
    struct pair pair = connected_pair();
    struct operation *receive = start_receive(pair.own, 10);

    CHECK(cancel(pair.own, receive));
    CHECK(!cancel(pair.own, receive));
    CHECK_EQUAL(GetLastError(), ERROR_NOT_FOUND);
    CHECK_EQUAL(wait_for(receive), ERROR_OPERATION_ABORTED);
}

static void closing_one_of_two_duplicates_ends_nothing(void)
{
    struct address at;
    SOCKET listener = listen_own(&at, 5), other = duplicate(listener);
    struct operation *accept = start_accept(listener), *of_other = start_accept(other);

    of_other->socket = listener; /* their packets have the key of the association */
    close_own(listener);
    CHECK_EQUAL(pump(50), 0);
    peer_connect(&at);
    CHECK_EQUAL(wait_for(accept), 0);
    CHECK_EQUAL(pump(10), 0);
    CHECK_EQUAL(closesocket(other), 0);
    CHECK_EQUAL(wait_for(of_other), ERROR_OPERATION_ABORTED);
}

/* ---- threads that end ---- */

struct started {
    struct pair pair;
    SOCKET socket;
    HANDLE event;
    struct operation *receive;
};

static void start_and_end(void *argument)
{
    struct started *started = argument;
    WSABUF buffer = {10, started->receive->data};
    DWORD flags = 0;

    started->receive->overlapped.hEvent = started->event;
    CHECK(WSARecv(started->socket, &buffer, 1, NULL, &flags, &started->receive->overlapped, NULL) != 0);
    CHECK_EQUAL(WSAGetLastError(), WSA_IO_PENDING);
}

static void a_pending_receive_of_a_port_outlives_its_thread(void)
{
    struct started started;

    memset(&started, 0, sizeof started);
    started.pair = connected_pair();
    started.socket = started.pair.own;
    started.receive = operation_new(started.socket, 10);
    thread_join(thread_start(start_and_end, &started));
    CHECK_EQUAL(pump(50), 0);
    peer_send(started.pair.peer, "hello", 5);
    CHECK_EQUAL(wait_for(started.receive), 0);
    CHECK_EQUAL(started.receive->bytes, 5);
}

static void with_an_event_a_pending_receive_ends_with_its_thread_though_it_has_a_port(void)
{
    struct started started;

    memset(&started, 0, sizeof started);
    started.pair = connected_pair();
    started.socket = started.pair.own;
    started.event = new_event();
    started.receive = operation_new(started.socket, 10);
    thread_join(thread_start(start_and_end, &started));
    CHECK_EQUAL(wait_for(started.receive), ERROR_OPERATION_ABORTED);
    CHECK(WaitForSingleObject(started.event, 0) == WAIT_OBJECT_0);
    CHECK(CloseHandle(started.event));
}

static void a_pending_receive_without_a_port_ends_with_its_thread(void)
{
    struct started started;
    struct address at;

    memset(&started, 0, sizeof started);
    peer_listen(&at, AF_INET, 5);
    started.socket = plain_socket();
    CHECK_EQUAL(connect(started.socket, (struct sockaddr *)&at.name, at.length), 0);
    started.event = new_event();
    started.receive = operation_new(started.socket, 10);
    started.receive->ended = 1; /* no packet can come */
    thread_join(thread_start(start_and_end, &started));
    CHECK(WaitForSingleObject(started.event, 10000) == WAIT_OBJECT_0);
    CHECK_EQUAL((ULONG)started.receive->overlapped.Internal, cancelled);
    CHECK_EQUAL(closesocket(started.socket), 0);
    CHECK(CloseHandle(started.event));
}

/* ---- statuses ---- */

static int winsocks_number(SOCKET s, ULONG status)
{
    OVERLAPPED overlapped;
    DWORD bytes, flags;

    memset(&overlapped, 0, sizeof overlapped);
    overlapped.Internal = status;
    CHECK(!WSAGetOverlappedResult(s, &overlapped, &bytes, FALSE, &flags));
    return WSAGetLastError();
}

static int ours(ULONG_PTR status)
{
    OVERLAPPED_ENTRY packet;

    memset(&packet, 0, sizeof packet);
    packet.Internal = status;
    return status_of(&packet);
}

/* WSAEINVAL is what Winsock says of a status that it does not know. */
static void check_statuses(SOCKET s, ULONG first, ULONG count)
{
    for (ULONG status = first; status < first + count; status++) {
        int number = winsocks_number(s, status);

        if (number != WSAEINVAL)
            CHECK_EQUAL(ours(status), number);
        else
            CHECK(ours(status) != 0);
    }
}

static void each_status_has_winsocks_number(void)
{
    SOCKET s = new_own(AF_INET);

    check_statuses(s, 0xC0000000, 0x1000);
    check_statuses(s, 0x80000001, 0x400);
}

static void a_status_that_a_layer_has_sign_extended_is_the_same(void)
{
    CHECK_EQUAL(ours(~(ULONG_PTR)0xFFFFFFFF | 0xC000020D), WSAECONNRESET);
}

static void a_status_that_is_no_error_is_success(void)
{
    CHECK_EQUAL(ours(0), 0);
    CHECK_EQUAL(ours(0x40000000), 0);
}

const struct test_case windows_cases[] = {
    CASE(an_accept_with_a_short_local_address_pends_and_fails_when_a_client_comes),
    CASE(an_accept_into_a_bound_socket_fails_at_its_start),
    CASE(a_second_accept_into_the_same_socket_fails_at_its_start),
    CASE(closing_its_placeholder_ends_an_accept),
    CASE(without_its_context_an_accepted_socket_does_not_know_its_peer),
    CASE(an_unbound_connect_fails_at_its_start),
    CASE(a_socket_has_a_connect_time_only_once_it_is_connected),
    CASE(a_receive_with_the_low_bit_of_its_event_set_posts_no_packet),
    CASE(notification_modes_cannot_be_cleared),
    CASE(a_send_on_a_reset_connection_fails_at_its_start_and_posts_no_packet),
    CASE(a_receive_on_a_reset_connection_fails_at_its_start_and_posts_no_packet),
    CASE(a_pending_receive_ends_with_the_status_of_a_reset),
    CASE(closing_its_socket_ends_a_pending_receive_as_aborted_or_disconnected),
    CASE(a_second_cancel_finds_nothing_though_the_packet_still_waits),
    CASE(closing_one_of_two_duplicates_ends_nothing),
    CASE(a_pending_receive_of_a_port_outlives_its_thread),
    CASE(with_an_event_a_pending_receive_ends_with_its_thread_though_it_has_a_port),
    CASE(a_pending_receive_without_a_port_ends_with_its_thread),
    CASE(each_status_has_winsocks_number),
    CASE(a_status_that_a_layer_has_sign_extended_is_the_same),
    CASE(a_status_that_is_no_error_is_success),
    END_OF_CASES,
};
#endif
