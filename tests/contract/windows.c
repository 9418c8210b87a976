/* What there is on Windows only: statuses that are to be made errors of Winsock. */
#include "contract.h"

#ifdef _WIN32
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
    CASE(each_status_has_winsocks_number),
    CASE(a_status_that_a_layer_has_sign_extended_is_the_same),
    CASE(a_status_that_is_no_error_is_success),
    END_OF_CASES,
};
#endif
