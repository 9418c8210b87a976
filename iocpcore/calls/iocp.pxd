# The calls of iocp.h, declared to Cython: types, constants and prototypes, the same on every platform.
from libc.stdint cimport uint64_t, uintptr_t

cdef extern from "iocp.h" nogil:
    ctypedef int BOOL
    ctypedef unsigned int DWORD
    ctypedef unsigned int ULONG
    ctypedef int LONG
    ctypedef long long LONG64
    ctypedef uintptr_t ULONG_PTR
    ctypedef void *HANDLE
    ctypedef uintptr_t SOCKET
    ctypedef struct SRWLOCK:
        pass
    ctypedef struct WSABUF:
        ULONG len
        char *buf
    ctypedef struct OVERLAPPED:
        ULONG_PTR Internal
        ULONG_PTR InternalHigh
    ctypedef struct IOCP_EVENT:
        pass
    ctypedef struct OVERLAPPED_ENTRY:
        ULONG_PTR lpCompletionKey
        OVERLAPPED *lpOverlapped
        ULONG_PTR Internal
        DWORD dwNumberOfBytesTransferred
    struct sockaddr:
        pass
    struct sockaddr_in:
        unsigned short sin_family
        unsigned short sin_port
        unsigned int sin_addr       # a struct of one 32-bit number
    struct sockaddr_in6:
        unsigned short sin6_family
        unsigned short sin6_port
        unsigned int sin6_flowinfo
        unsigned int sin6_scope_id
        char sin6_addr[16]          # a struct of 16 bytes
    ctypedef struct SOCKADDR_STORAGE:
        unsigned short ss_family

    const SOCKET INVALID_SOCKET
    const DWORD INFINITE
    const int AF_INET
    const int AF_INET6
    const DWORD WAIT_TIMEOUT
    const int WSA_IO_PENDING
    const int ERROR_INVALID_PARAMETER
    const int ERROR_OPERATION_ABORTED
    const int ERROR_NO_SYSTEM_RESOURCES
    const int ERROR_WORKING_SET_QUOTA
    const int ERROR_NOT_ENOUGH_QUOTA
    const int WSAEMFILE
    const int WSAECONNABORTED
    const int WSAENOBUFS
    const int WSAETIMEDOUT

    HANDLE CreateIoCompletionPort(HANDLE file, HANDLE port, ULONG_PTR key, DWORD threads)
    BOOL GetQueuedCompletionStatusEx(HANDLE port, OVERLAPPED_ENTRY *entries, ULONG count, ULONG *removed,
                                     DWORD milliseconds, BOOL alertable)
    BOOL PostQueuedCompletionStatus(HANDLE port, DWORD bytes, ULONG_PTR key, OVERLAPPED *overlapped)
    BOOL CloseHandle(HANDLE port)
    BOOL AcceptEx(SOCKET listener, SOCKET placeholder, void *buffer, DWORD receive_length, DWORD local_length,
                  DWORD remote_length, DWORD *received, OVERLAPPED *overlapped)
    BOOL ConnectEx(SOCKET s, const sockaddr *name, int name_length, void *send_buffer, DWORD send_length, DWORD *sent,
                   OVERLAPPED *overlapped)
    int WSARecv(SOCKET s, WSABUF *buffers, DWORD count, DWORD *received, DWORD *flags, OVERLAPPED *overlapped,
                void *routine)
    int WSASend(SOCKET s, WSABUF *buffers, DWORD count, DWORD *sent, DWORD flags, OVERLAPPED *overlapped,
                void *routine)
    BOOL CancelIoEx(HANDLE file, OVERLAPPED *overlapped)
    int closesocket(SOCKET s)
    DWORD GetLastError()
    int WSAGetLastError()

    int iocp_startup()
    const char *iocp_backend_name(int index)
    const char *iocp_backend_missing(int index)
    int iocp_backend_find(const char *name)
    const char *iocp_backend_absent(const char *name)
    HANDLE iocp_open_port(int backend)
    int iocp_claim(SOCKET s, HANDLE port, ULONG_PTR key)
    void iocp_unclaim(SOCKET s)
    int iocp_associate_claimed(SOCKET s, HANDLE port, ULONG_PTR key)
    SOCKET iocp_socket(HANDLE port, int family)
    int iocp_accept_placeholder(int family, SOCKET *placeholder)
    SOCKET iocp_accept_waiting(SOCKET listener)
    SOCKET iocp_accepted(SOCKET placeholder, const OVERLAPPED *overlapped)
    int iocp_associate_shared(SOCKET s, HANDLE port, ULONG_PTR key)
    int iocp_event_open(IOCP_EVENT *event, HANDLE port, ULONG_PTR key, OVERLAPPED *overlapped)
    void iocp_event_use(const IOCP_EVENT *event)
    void iocp_event_close(IOCP_EVENT *event)
    int iocp_update_accepted(SOCKET s, SOCKET listener)
    int iocp_update_connected(SOCKET s)
    int iocp_bind_for_connect(SOCKET s, int family)
    int iocp_skip_on_success(SOCKET s)
    int iocp_lingers(SOCKET s)
    void iocp_linger_off(SOCKET s)
    void iocp_linger_zero(SOCKET s)
    int iocp_no_delay(SOCKET s)
    bint IOCP_INHERITS_NO_DELAY
    int IOCP_LATE_PORT_LEVEL
    int IOCP_LATE_PORT
    int IOCP_BUFFERS_ENOUGH
    bint IOCP_CANCEL_SPARES
    int iocp_keep_alive(SOCKET s, unsigned idle, unsigned interval, unsigned probes)
    void iocp_own_name(SOCKET s, SOCKADDR_STORAGE *name)
    void iocp_peer_name(SOCKET s, SOCKADDR_STORAGE *name)
    int iocp_was_connected(SOCKET s)
    void *iocp_accept_buffer(void *buffer, bint wanted)
    int iocp_shutdown_send(SOCKET s)
    uint64_t iocp_taken(SOCKET s)
    bint iocp_has_come(SOCKET s, OVERLAPPED *overlapped)
    bint iocp_has_ended(SOCKET s, OVERLAPPED *overlapped)
    int iocp_has_forked()
    void iocp_break_off(SOCKET s)
    void iocp_stop_listening(SOCKET s)
    int iocp_status(const OVERLAPPED_ENTRY *entry)
    void iocp_submit(HANDLE port)
    uint64_t iocp_now(HANDLE port)
    void iocp_wait_undisturbed(HANDLE port)
    long iocp_process_id()
    void *iocp_take_pages(size_t size)
    void iocp_give_pages(void *pages, size_t size)
    void iocp_trim(HANDLE port)
    void iocp_error_text(int error, char *text, size_t room)
    const char *iocp_compiler()

    void InitializeSRWLock(SRWLOCK *lock)
    void AcquireSRWLockExclusive(SRWLOCK *lock)
    void ReleaseSRWLockExclusive(SRWLOCK *lock)
    LONG InterlockedIncrement(LONG *p)
    LONG InterlockedDecrement(LONG *p)
    LONG InterlockedExchange(LONG *p, LONG value)
    LONG64 InterlockedExchange64(LONG64 *p, LONG64 value)
    LONG64 InterlockedExchangeAdd64(LONG64 *p, LONG64 value)
    LONG iocp_read32(LONG *p)
    LONG64 iocp_read64(LONG64 *p)
    void iocp_write64(LONG64 *p, LONG64 value)
    LONG InterlockedCompareExchange(LONG *p, LONG value, LONG expected)

cdef extern from *:
    bint unlikely(bint condition) noexcept nogil    # Cython's branch hint
