/* Before every source that is compiled for Microsoft's ABI: what its compiler and its SDK have, and wine's headers lack. */
#define WIN32_LEAN_AND_MEAN
#define _WIN32_WINNT 0x0601
#include <winsock2.h>
#include <ws2tcpip.h>
#include <windows.h>

#define FILE_SKIP_COMPLETION_PORT_ON_SUCCESS 1

__int64 _abs64(__int64 number);

static inline LONG64 InterlockedExchange64(LONG64 volatile *target, LONG64 value)
{
    LONG64 before;

    do
        before = *target;
    while (InterlockedCompareExchange64(target, value, before) != before);
    return before;
}
