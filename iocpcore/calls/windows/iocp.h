/* The I/O completion port calls on Windows: the system's own headers, and the `iocp_...` functions that linux/iocp.h
 * describes. This file hides the quirks of Windows from the core.
 *
 * Ownership and threads: the only state is two function pointers and the system's build number, which iocp_startup()
 * writes once, under the GIL and before any worker runs.
 */
#ifndef IOCPCORE_WINDOWS_IOCP_H
#define IOCPCORE_WINDOWS_IOCP_H

#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN /* else windows.h includes winsock.h, which conflicts with winsock2.h */
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

/* Winsock's error is the thread's last error: Go's runtime relies on that too. WSAGetLastError() itself would be a call
 * into another DLL for each operation that pends. */
#define WSAGetLastError() ((int)GetLastError())

#ifndef XP1_IFS_HANDLES
#define XP1_IFS_HANDLES 0x00020000
#endif

/* Posts a packet when its operation ends, for sockets that are associated with no port. Must not move while it is
 * open. */
typedef struct {
    HANDLE event; /* NULL: not open */
    HANDLE wait;
    HANDLE port;
    ULONG_PTR key;
    OVERLAPPED *overlapped;
} IOCP_EVENT;

static LPFN_CONNECTEX iocp_connect_ex; /* no import library has ConnectEx */
static ULONG(WINAPI *iocp_nt_to_error)(LONG);
static DWORD iocp_build; /* of Windows */
enum { WINDOWS_10_1709 = 16299 };

/* GetVersionEx() reports no newer version than the program's manifest names, so ask ntdll. */
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

/* A connect to the unspecified address reaches this machine on Linux and fails on Windows: use loopback instead. */
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

/* Windows repeats a refused SYN for two seconds. On loopback that is useless, so SIO_TCP_INITIAL_RTO switches it off.
 * Since
   Windows 10 1709 -2 repetitions mean "none": https://learn.microsoft.com/windows/win32/winsock/sio-tcp-initial-rto */
static inline void iocp_repeat_no_syn(SOCKET s)
{
    struct {
        USHORT round_trip; /* -1: the system's default */
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

/* Associates it with the port, for good. */
static inline int iocp_claim(SOCKET s, HANDLE port, ULONG_PTR key)
{
    if (port == NULL) /* a shared listener's: it is associated with no port */
        return 0;
    return CreateIoCompletionPort((HANDLE)s, port, key, 0) == NULL ? (int)GetLastError() : 0;
}

static inline void iocp_unclaim(SOCKET s)
{
    (void)s; /* an association cannot be undone */
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

/* Accepts without waiting; INVALID_SOCKET: no connection, or an error. Skips connections that their clients have reset.
 * Like all our sockets this one is not inheritable. */
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

/* Several processes listen on this socket. Only one port could be associated with it, and would get the packets of all
 * these processes: so none is. */
static inline int iocp_associate_shared(SOCKET s, HANDLE port, ULONG_PTR key)
{
    (void)s, (void)port, (void)key;
    return 0;
}

/* Called in a thread of the system's pool. The packet carries no status: the OVERLAPPED has it. If there is no memory
 * for the packet, setting the event again calls this function again. */
static inline VOID CALLBACK iocp_event_is_set(void *argument, BOOLEAN timed_out)
{
    const IOCP_EVENT *event = (const IOCP_EVENT *)argument;

    (void)timed_out;
    if (!PostQueuedCompletionStatus(event->port, 0, event->key, event->overlapped))
        SetEvent(event->event);
}

/* An auto-reset event: each end of the operation calls iocp_event_is_set() once. */
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

/* The low bit keeps the system from posting a packet itself, to the port of a process that does not know that the
 * socket is shared: https://learn.microsoft.com/windows/win32/api/ioapiset/nf-ioapiset-getqueuedcompletionstatus */
static inline void iocp_event_use(const IOCP_EVENT *event)
{
    event->overlapped->hEvent = (HANDLE)((ULONG_PTR)event->event | 1);
}

static inline void iocp_event_close(IOCP_EVENT *event)
{
    if (event->event == NULL)
        return;
    UnregisterWaitEx(event->wait, INVALID_HANDLE_VALUE); /* waits for calls that still run */
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

/* SO_REUSE_UNICASTPORT, since Windows 10: bind() to port 0 leaves the choice of a port to ConnectEx, and connections to
   different servers may share one. https://learn.microsoft.com/windows/win32/winsock/sol-socket-socket-options */
#define IOCP_LATE_PORT 0x3007

static inline int iocp_bind_for_connect(SOCKET s, int family)
{
    struct sockaddr_storage any;
    int on = 1;
    int length = family == AF_INET6 ? (int)sizeof(struct sockaddr_in6) : (int)sizeof(struct sockaddr_in);

    memset(&any, 0, sizeof any);
    any.ss_family = (ADDRESS_FAMILY)family;
    setsockopt(s, SOL_SOCKET, IOCP_LATE_PORT, (const char *)&on, sizeof on); /* fails on older systems: no matter */
    return bind(s, (struct sockaddr *)&any, length) == 0 ? 0 : WSAGetLastError();
}

/* A layered provider without real handles may post the packet all the same, and the core would count the end twice. */
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

#define IOCP_BUFFERS_ENOUGH 256 /* more than on Linux: a zero-byte receive costs one more call and packet */
#define IOCP_CANCEL_SPARES 0 /* disputed: see cancel-and-go-on in docs/windows.md */
#define IOCP_LATE_PORT_LEVEL SOL_SOCKET
#define IOCP_INHERITS_NO_DELAY 0 /* which options an accepted socket inherits is not documented */

/* The number of probes stays the system's default (10): setting it needs Windows 10 1703. */
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

/* After a reset Windows still knows the peer's name, wine does not: ask for the time since the connect instead. */
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
    (void)s; /* Windows has no call for it */
}

static inline void iocp_stop_listening(SOCKET s)
{
    (void)s; /* no child inherits it: closing it is enough */
}

static inline uint64_t iocp_taken(SOCKET s)
{
    (void)s; /* Windows shows only that a send has ended */
    return 0;
}

/* The system sets the status before the packet is dequeued. */
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

/* Internal holds an NTSTATUS; some layers sign-extend it, so only its low half counts. If Winsock has no number for it,
 * RtlNtStatusToDosError()'s is used, which says more than WSAEINVAL would. */
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
    (void)port; /* a start reaches the system at once */
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
    (void)port; /* Windows has no signals */
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
    (void)port; /* no memory is kept per socket */
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
        snprintf(text, room, "error %d", error); /* wine has no texts for Winsock's errors */
}

/* Simple reads and writes of aligned variables are atomic, of 64 bits on 64-bit Windows:
 * https://learn.microsoft.com/windows/win32/sync/interlocked-variable-access */
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
