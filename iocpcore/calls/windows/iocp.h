/* The I/O completion port calls on Windows: the system's own headers, and the `iocp_...` functions that linux/iocp.h
 * describes. Quirks of Windows that the core must not see end here.
 *
 * Ownership and threads: nothing is owned here but two function pointers and the number of the system's build, written once
 * by iocp_startup() under the GIL before any worker runs.
 */
#ifndef IOCPCORE_WINDOWS_IOCP_H
#define IOCPCORE_WINDOWS_IOCP_H

#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN /* else windows.h brings winsock.h, which contradicts winsock2.h */
#endif
#if !defined(_WIN32_WINNT) || _WIN32_WINNT < 0x0601
#undef _WIN32_WINNT
#define _WIN32_WINNT 0x0601 /* Windows 7 has every call we use */
#endif
#include <winsock2.h>
#include <ws2tcpip.h>
#include <mswsock.h>
#include <mstcpip.h>
#include <windows.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "status.h"

/* The same number: Winsock's is the thread's last error (Go's runtime relies on it too). Asking Winsock would be a call
 * into another DLL for each operation that pends. */
#define WSAGetLastError() ((int)GetLastError())

#ifndef XP1_IFS_HANDLES
#define XP1_IFS_HANDLES 0x00020000
#endif

/* Posts a packet when its operation ends, for sockets that no port may own. It stays where it is while it is open. */
typedef struct {
    HANDLE event; /* NULL: not open */
    HANDLE wait;
    HANDLE port;
    ULONG_PTR key;
    OVERLAPPED *overlapped;
} IOCP_EVENT;

static LPFN_CONNECTEX iocp_connect_ex; /* ConnectEx is not in any import library */
static ULONG(WINAPI *iocp_nt_to_error)(LONG);
static DWORD iocp_build; /* of Windows */
enum { WINDOWS_10_1709 = 16299 };

/* GetVersionEx() tells what the program's manifest knows. */
static inline DWORD iocp_find_build(HMODULE ntdll)
{
    LONG(WINAPI * get_version)(OSVERSIONINFOW *) =
        (LONG(WINAPI *)(OSVERSIONINFOW *))(void (*)(void))GetProcAddress(ntdll, "RtlGetVersion");
    OSVERSIONINFOW version;

    memset(&version, 0, sizeof version);
    version.dwOSVersionInfoSize = sizeof version;
    return get_version != NULL && get_version(&version) == 0 ? version.dwBuildNumber : 0;
}

static inline int iocp_startup(void)
{
    WSADATA data;
    GUID connect_ex = WSAID_CONNECTEX;
    HMODULE ntdll = GetModuleHandleW(L"ntdll.dll");
    SOCKET any;
    DWORD bytes;
    int error;

    if (iocp_connect_ex != NULL)
        return 0;
    error = WSAStartup(MAKEWORD(2, 2), &data);
    if (error != 0)
        return error;
    iocp_nt_to_error = (ULONG(WINAPI *)(LONG))(void (*)(void))GetProcAddress(ntdll, "RtlNtStatusToDosError");
    if (iocp_nt_to_error == NULL)
        return (int)GetLastError();
    iocp_build = iocp_find_build(ntdll);
    any = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP);
    if (any == INVALID_SOCKET)
        return WSAGetLastError();
    error = WSAIoctl(any, SIO_GET_EXTENSION_FUNCTION_POINTER, &connect_ex, sizeof connect_ex, &iocp_connect_ex,
                     sizeof iocp_connect_ex, &bytes, NULL, NULL) == 0
                ? 0
                : WSAGetLastError();
    closesocket(any);
    return error;
}

/* The unspecified address, which Windows does not connect to, means this machine elsewhere. */
static inline void iocp_specify(SOCKADDR_STORAGE *name)
{
    static const struct in6_addr loopback = {{{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}}};
    struct sockaddr_in *four = (struct sockaddr_in *)name;
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)name;

    if (name->ss_family == AF_INET && four->sin_addr.s_addr == htonl(INADDR_ANY))
        four->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    else if (name->ss_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&six->sin6_addr))
        six->sin6_addr = loopback;
}

static inline int iocp_is_loopback(const SOCKADDR_STORAGE *name)
{
    const struct sockaddr_in *four = (const struct sockaddr_in *)name;

    if (name->ss_family == AF_INET)
        return ntohl(four->sin_addr.s_addr) >> 24 == 127;
    return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)name)->sin6_addr);
}

/* Windows repeats a refused SYN for two seconds, as if its answer could have been lost: not so within a machine. That -2
   repetitions mean "none" is known since Windows 10 1709 (SIO_TCP_INITIAL_RTO):
   https://learn.microsoft.com/windows/win32/winsock/sio-tcp-initial-rto */
static inline void iocp_repeat_no_syn(SOCKET s)
{
    struct {
        USHORT round_trip; /* -1: the system's own */
        UCHAR repetitions;
    } never = {(USHORT)-1, (UCHAR)-2};
    DWORD bytes;

    if (iocp_build < WINDOWS_10_1709)
        return;
    WSAIoctl(s, _WSAIOW(IOC_VENDOR, 17), &never, sizeof never, NULL, 0, &bytes, NULL, NULL);
}

static inline BOOL ConnectEx(SOCKET s, const struct sockaddr *name, int name_length, void *send_buffer,
                             DWORD send_length, DWORD *sent, OVERLAPPED *overlapped)
{
    SOCKADDR_STORAGE to;

    memcpy(&to, name, (size_t)name_length);
    iocp_specify(&to);
    if (iocp_is_loopback(&to))
        iocp_repeat_no_syn(s);
    return iocp_connect_ex(s, (struct sockaddr *)&to, name_length, send_buffer, send_length, sent, overlapped);
}

static inline const char *iocp_backend_name(int index)
{
    return index == 0 ? "iocp" : NULL;
}

static inline const char *iocp_backend_missing(int index)
{
    (void)index;
    return NULL;
}

static inline int iocp_backend_find(const char *name)
{
    return strcmp(name, "auto") == 0 || strcmp(name, "iocp") == 0 ? 0 : -1;
}

static inline const char *iocp_backend_absent(const char *name)
{
    return strcmp(name, "epoll") == 0 || strcmp(name, "uring") == 0 ? "it is for Linux" : NULL;
}

static inline HANDLE iocp_open_port(int backend)
{
    (void)backend;
    return CreateIoCompletionPort(INVALID_HANDLE_VALUE, NULL, 0, 1);
}

/* It belongs to the port from now on, for life. */
static inline int iocp_claim(SOCKET s, HANDLE port, ULONG_PTR key)
{
    if (port == NULL) /* one that is shared: no port may own it */
        return 0;
    return CreateIoCompletionPort((HANDLE)s, port, key, 0) == NULL ? (int)GetLastError() : 0;
}

static inline void iocp_unclaim(SOCKET s)
{
    (void)s; /* there is no way back */
}

static inline int iocp_associate_claimed(SOCKET s, HANDLE port, ULONG_PTR key)
{
    (void)s, (void)port, (void)key;
    return 0;
}

static inline SOCKET iocp_socket(HANDLE port, int family)
{
    (void)port;
    return WSASocketW(family, SOCK_STREAM, IPPROTO_TCP, NULL, 0, WSA_FLAG_OVERLAPPED | WSA_FLAG_NO_HANDLE_INHERIT);
}

static inline int iocp_accept_placeholder(int family, SOCKET *placeholder)
{
    *placeholder = iocp_socket(NULL, family);
    return *placeholder == INVALID_SOCKET ? WSAGetLastError() : 0;
}

/* A connection that waits for an accept; INVALID_SOCKET: none can be had. One that its client has reset is passed over. No
 * child is to inherit it, as all our sockets. */
static inline SOCKET iocp_accept_waiting(SOCKET listener)
{
    u_long on = 1;
    SOCKET s;

    if (ioctlsocket(listener, FIONBIO, &on) != 0)
        return INVALID_SOCKET;
    do
        s = accept(listener, NULL, NULL);
    while (s == INVALID_SOCKET && WSAGetLastError() == WSAECONNRESET);
    if (s != INVALID_SOCKET)
        SetHandleInformation((HANDLE)s, HANDLE_FLAG_INHERIT, 0);
    return s;
}

static inline SOCKET iocp_accepted(SOCKET placeholder, const OVERLAPPED *overlapped)
{
    (void)overlapped;
    return placeholder;
}

/* Several processes listen on this socket: no port may own it, for then no other process could have its own, and a packet
 * of one process would reach another. */
static inline int iocp_associate_shared(SOCKET s, HANDLE port, ULONG_PTR key)
{
    (void)s, (void)port, (void)key;
    return 0;
}

/* A thread of the system's pool. The packet carries no status: OVERLAPPED has it. Without memory for a packet the event
 * is set again, and with it this is called again. */
static inline VOID CALLBACK iocp_event_is_set(void *argument, BOOLEAN timed_out)
{
    const IOCP_EVENT *event = (const IOCP_EVENT *)argument;

    (void)timed_out;
    if (!PostQueuedCompletionStatus(event->port, 0, event->key, event->overlapped))
        SetEvent(event->event);
}

/* The event resets itself, so that each end of the operation is one call. */
static inline int iocp_event_open(IOCP_EVENT *event, HANDLE port, ULONG_PTR key, OVERLAPPED *overlapped)
{
    int error;

    event->port = port;
    event->key = key;
    event->overlapped = overlapped;
    event->event = CreateEventW(NULL, FALSE, FALSE, NULL);
    if (event->event == NULL)
        return (int)GetLastError();
    if (RegisterWaitForSingleObject(&event->wait, event->event, iocp_event_is_set, event, INFINITE,
                                    WT_EXECUTEINWAITTHREAD))
        return 0;
    error = (int)GetLastError();
    CloseHandle(event->event);
    event->event = NULL;
    return error;
}

/* The low bit: a port that owns the socket all the same, in a process that shares without knowing, gets no packet. */
static inline void iocp_event_use(const IOCP_EVENT *event)
{
    event->overlapped->hEvent = (HANDLE)((ULONG_PTR)event->event | 1);
}

static inline void iocp_event_close(IOCP_EVENT *event)
{
    if (event->event == NULL)
        return;
    UnregisterWaitEx(event->wait, INVALID_HANDLE_VALUE); /* waits until no call runs any more */
    CloseHandle(event->event);
    event->event = NULL;
}

static inline int iocp_update_accepted(SOCKET s, SOCKET listener)
{
    return setsockopt(s, SOL_SOCKET, SO_UPDATE_ACCEPT_CONTEXT, (const char *)&listener, sizeof listener) == 0
               ? 0
               : WSAGetLastError();
}

static inline int iocp_update_connected(SOCKET s)
{
    return setsockopt(s, SOL_SOCKET, SO_UPDATE_CONNECT_CONTEXT, NULL, 0) == 0 ? 0 : WSAGetLastError();
}

/* A socket option: bind() to port 0 leaves the choice of a port to ConnectEx, and connections may share one.
   SO_REUSE_UNICASTPORT, since Windows 10: https://learn.microsoft.com/windows/win32/winsock/sol-socket-socket-options */
#define IOCP_LATE_PORT 0x3007

static inline int iocp_bind_for_connect(SOCKET s, int family)
{
    struct sockaddr_storage any;
    int on = 1;
    int length = family == AF_INET6 ? (int)sizeof(struct sockaddr_in6) : (int)sizeof(struct sockaddr_in);

    memset(&any, 0, sizeof any);
    any.ss_family = (ADDRESS_FAMILY)family;
    setsockopt(s, SOL_SOCKET, IOCP_LATE_PORT, (const char *)&on, sizeof on); /* an older system does not know it */
    return bind(s, (struct sockaddr *)&any, length) == 0 ? 0 : WSAGetLastError();
}

/* A layered provider without real handles would still post the packet, and the core would count it twice. */
static inline int iocp_skip_on_success(SOCKET s)
{
    WSAPROTOCOL_INFOW info;
    int length = sizeof info;

    if (getsockopt(s, SOL_SOCKET, SO_PROTOCOL_INFOW, (char *)&info, &length) != 0)
        return 0;
    if (!(info.dwServiceFlags1 & XP1_IFS_HANDLES))
        return 0;
    return SetFileCompletionNotificationModes((HANDLE)s, FILE_SKIP_COMPLETION_PORT_ON_SUCCESS);
}

static inline int iocp_lingers(SOCKET s)
{
    struct linger linger = {0, 0};
    int length = sizeof linger;

    return getsockopt(s, SOL_SOCKET, SO_LINGER, (char *)&linger, &length) == 0 && linger.l_onoff;
}

static inline void iocp_linger_off(SOCKET s)
{
    struct linger off = {0, 0};

    setsockopt(s, SOL_SOCKET, SO_LINGER, (const char *)&off, sizeof off);
}

static inline void iocp_linger_zero(SOCKET s)
{
    struct linger zero = {1, 0};

    setsockopt(s, SOL_SOCKET, SO_LINGER, (const char *)&zero, sizeof zero);
}

static inline int iocp_no_delay(SOCKET s)
{
    int on = 1;

    return setsockopt(s, IPPROTO_TCP, TCP_NODELAY, (const char *)&on, sizeof on) == 0 ? 0 : WSAGetLastError();
}

#define IOCP_BUFFERS_ENOUGH 256 /* posted at a time: waiting without one first costs a call and a packet more */
#define IOCP_CANCEL_SPARES 0 /* whether a connection goes on then is disputed: docs/windows.md, cancel-and-go-on */
#define IOCP_LATE_PORT_LEVEL SOL_SOCKET
#define IOCP_INHERITS_NO_DELAY 0 /* what an accepted socket has from the listening one is not documented */

/* The number of probes is the system's own (10): setting it needs Windows 10 1703. */
static inline int iocp_keep_alive(SOCKET s, unsigned idle, unsigned interval, unsigned probes)
{
    struct tcp_keepalive values = {1, idle * 1000, interval * 1000};
    DWORD bytes;

    (void)probes;
    return WSAIoctl(s, SIO_KEEPALIVE_VALS, &values, sizeof values, NULL, 0, &bytes, NULL, NULL) == 0 ? 0
                                                                                                    : WSAGetLastError();
}

static inline void iocp_own_name(SOCKET s, SOCKADDR_STORAGE *name)
{
    int length = sizeof *name;

    if (getsockname(s, (struct sockaddr *)name, &length) != 0)
        name->ss_family = 0;
}

static inline void iocp_peer_name(SOCKET s, SOCKADDR_STORAGE *name)
{
    int length = sizeof *name;

    if (getpeername(s, (struct sockaddr *)name, &length) != 0) /* Winsock knows it after a reset, too */
        name->ss_family = 0;
}

/* Windows knows the peer's name still, wine does not. */
static inline int iocp_was_connected(SOCKET s)
{
    DWORD seconds = 0xFFFFFFFF;
    int length = sizeof seconds;

    return getsockopt(s, SOL_SOCKET, SO_CONNECT_TIME, (char *)&seconds, &length) == 0 && seconds != 0xFFFFFFFF;
}

#define iocp_accept_buffer(buffer, wanted) (buffer)

static inline int iocp_shutdown_send(SOCKET s)
{
    return shutdown(s, SD_SEND) == 0 ? 0 : WSAGetLastError();
}

static inline void iocp_break_off(SOCKET s)
{
    (void)s; /* there is no call for it */
}

static inline void iocp_stop_listening(SOCKET s)
{
    (void)s; /* no child has it: closing it is enough */
}

static inline uint64_t iocp_taken(SOCKET s)
{
    (void)s; /* a send that ends is all that is seen */
    return 0;
}

/* The system says so before the packet is dequeued. */
static inline int iocp_has_come(SOCKET s, OVERLAPPED *overlapped)
{
    (void)s;
    return HasOverlappedIoCompleted(overlapped);
}

static inline int iocp_has_ended(SOCKET s, OVERLAPPED *overlapped)
{
    (void)s;
    return HasOverlappedIoCompleted(overlapped);
}

static inline int iocp_has_forked(void)
{
    return 0;
}

/* Internal holds an NTSTATUS; some layers sign-extend it, so only its low half counts. What Winsock has no number for
 * keeps the one that files have: it names more than WSAEINVAL would. */
static inline int iocp_status(const OVERLAPPED_ENTRY *entry)
{
    LONG status = (LONG)(entry->Internal & 0xFFFFFFFFu);
    int error;

    if (status >= 0)
        return 0;
    error = iocp_winsock_error((ULONG)status);
    return error != 0 ? error : (int)iocp_nt_to_error(status);
}

static inline void iocp_submit(HANDLE port)
{
    (void)port; /* a start is on its way at once */
}

static inline uint64_t iocp_now(HANDLE port)
{
    LARGE_INTEGER ticks, per_second;

    (void)port;
    QueryPerformanceCounter(&ticks);
    QueryPerformanceFrequency(&per_second);
    return (uint64_t)(ticks.QuadPart / per_second.QuadPart) * 1000000000u +
           (uint64_t)(ticks.QuadPart % per_second.QuadPart) * 1000000000u / (uint64_t)per_second.QuadPart;
}

static inline void iocp_wait_undisturbed(HANDLE port)
{
    (void)port; /* there are no signals */
}

static inline void *iocp_take_pages(size_t size)
{
    return VirtualAlloc(NULL, size, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
}

static inline void iocp_give_pages(void *pages, size_t size)
{
    (void)size;
    VirtualFree(pages, 0, MEM_RELEASE);
}

static inline void iocp_trim(HANDLE port)
{
    (void)port; /* what Windows keeps of a socket is its own */
}

static inline long iocp_process_id(void)
{
    return (long)GetCurrentProcessId();
}

static inline void iocp_error_text(int error, char *text, size_t room)
{
    WCHAR wide[512];
    DWORD length = FormatMessageW(FORMAT_MESSAGE_FROM_SYSTEM | FORMAT_MESSAGE_IGNORE_INSERTS, NULL, (DWORD)error, 0, wide,
                                  sizeof wide / sizeof *wide, NULL);
    int bytes;

    while (length > 0 && (wide[length - 1] == L'\r' || wide[length - 1] == L'\n' || wide[length - 1] == L'.'))
        length--;
    bytes = WideCharToMultiByte(CP_UTF8, 0, wide, (int)length, text, (int)room - 1, NULL, NULL);
    if (bytes > 0)
        text[bytes] = '\0';
    else
        snprintf(text, room, "error %d", error); /* wine has no words for Winsock's errors */
}

/* What is aligned is read and written as a whole. */
#define iocp_read32(p) (*(const volatile LONG *)(p))
#define iocp_read64(p) (*(const volatile LONG64 *)(p))
#define iocp_write64(p, v) ((void)(*(volatile LONG64 *)(p) = (v)))

#define IOCP_TEXT(x) #x
#define IOCP_TEXT_OF(x) IOCP_TEXT(x)

static inline const char *iocp_compiler(void)
{
#ifdef _MSC_VER
    return "MSVC " IOCP_TEXT_OF(_MSC_VER);
#else
    return "GCC " __VERSION__;
#endif
}

#endif
