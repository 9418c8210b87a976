/* The suite's own side of a case: its port, its operations and its sockets. The rules are in contract.h. */
#include <stdio.h>
#ifdef _WIN32
#include <process.h>
#else
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>
#endif

#include "contract.h"

HANDLE port;
int backend;
int skipping;

static struct operation *operations;
static uint32_t random_state;

enum { SOCKETS = 4096, BATCH = 64 };
static struct {
    SOCKET socket;
    int own;
} kept[SOCKETS];
static size_t kept_count;
static SOCKET pairs_listener;
static struct address pairs_address;

/* ---- failing ---- */

_Noreturn void fail(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: %s does not hold (errors %u, %d)\n", file, line, what, (unsigned)GetLastError(),
            (int)WSAGetLastError());
    exit(1);
}

_Noreturn void skip(const char *why)
{
    puts(why);
    exit(77);
}

void check_equal(long long a, long long b, const char *file, int line, const char *what)
{
    char text[300];

    if (a == b)
        return;
    snprintf(text, sizeof text, "%s (%lld, %lld)", what, a, b);
    fail(file, line, text);
}

/* ---- the case ---- */

static int open_descriptors(void)
{
    int count = 0;

#ifndef _WIN32
    for (int fd = 0; fd < SOCKETS; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
#endif
    return count;
}

static int descriptors_before;

void case_begin(void)
{
    CHECK(iocp_startup() == 0); /* on Windows its function pointers are each source file's own */
    descriptors_before = open_descriptors();
    pairs_listener = INVALID_SOCKET;
    port = another_port();
}

HANDLE another_port(void)
{
    HANDLE opened = iocp_open_port(backend);

    CHECK(opened != NULL);
    return opened;
}

uint64_t patience(void)
{
    return iocp_now(port) + UINT64_C(20000000000);
}

static void cancel_everything(void)
{
    for (size_t i = 0; i < kept_count; i++) {
        if (kept[i].own)
            CancelIoEx((HANDLE)(ULONG_PTR)kept[i].socket, NULL);
    }
}

void case_end(void)
{
    cancel_everything();
    for (struct operation *op = operations; op != NULL; op = op->next)
        wait_for(op);
    pump_all(); /* a packet too many fails there */
    while (operations != NULL) {
        struct operation *op = operations;

        operations = op->next;
        if (op->accepts)
            closesocket(op->status == 0 ? iocp_accepted(op->placeholder, &op->overlapped) : op->placeholder);
        free(op->data);
        free(op);
    }
    while (kept_count > 0) {
        iocp_linger_zero(kept[--kept_count].socket); /* no TIME_WAIT: many cases would use up the port numbers */
        closesocket(kept[kept_count].socket);
    }
    pump_all();
    CHECK(CloseHandle(port));
    CHECK_EQUAL(open_descriptors(), descriptors_before);
}

/* ---- operations ---- */

struct operation *operation_new(SOCKET s, size_t size)
{
    struct operation *op = calloc(1, sizeof *op);

    CHECK(op != NULL);
    op->data = malloc(size > 0 ? size : 1);
    CHECK(op->data != NULL);
    op->size = size;
    op->socket = s;
    op->placeholder = INVALID_SOCKET;
    op->next = operations;
    operations = op;
    return op;
}

/* The outcome of a start: `error` is 0, WSA_IO_PENDING, or why it failed. */
static struct operation *started(struct operation *op, int error, DWORD bytes, int packet_for_success)
{
    op->how = error == 0 ? INLINE : error == WSA_IO_PENDING ? PENDING : FAILED;
    if (op->how == FAILED || (op->how == INLINE && !packet_for_success)) {
        op->ended = 1;
        op->status = error;
        op->bytes = error == 0 ? bytes : 0;
    }
    return op;
}

struct operation *start_accept(SOCKET listener)
{
    struct operation *op = operation_new(listener, 0);
    DWORD bytes = 0, room = sizeof op->addresses / 2;
    int error = iocp_accept_placeholder(address_of(listener).name.ss_family, &op->placeholder);
    BOOL ok;

    op->accepts = 1;
    if (error != 0)
        return started(op, error, 0, !skipping);
    ok = AcceptEx(listener, op->placeholder, op->addresses, 0, room, room, &bytes, &op->overlapped);
    return started(op, ok ? 0 : (int)WSAGetLastError(), bytes, !skipping);
}

struct operation *start_connect(SOCKET s, const struct address *to)
{
    struct operation *op = operation_new(s, 0);
    DWORD bytes = 0;
    struct address copy = *to;
    BOOL ok = ConnectEx(s, (struct sockaddr *)&copy.name, copy.length, NULL, 0, &bytes, &op->overlapped);
    int error = ok ? 0 : (int)WSAGetLastError();

    memset(&copy, 0xFF, sizeof copy); /* the call must have copied it */
    return started(op, error, bytes, !skipping);
}

static struct operation *receive_with(struct operation *op, WSABUF *buffers, DWORD count)
{
    DWORD bytes = 0, flags = 0;
    int error = WSARecv(op->socket, buffers, count, &bytes, &flags, &op->overlapped, NULL) == 0 ? 0 : WSAGetLastError();

    memset(buffers, 0xFF, count * sizeof *buffers); /* the call must have copied them */
    return started(op, error, bytes, !skipping);
}

static struct operation *send_with(struct operation *op, WSABUF *buffers, DWORD count)
{
    DWORD bytes = 0;
    int error = WSASend(op->socket, buffers, count, &bytes, 0, &op->overlapped, NULL) == 0 ? 0 : WSAGetLastError();

    memset(buffers, 0xFF, count * sizeof *buffers);
    return started(op, error, bytes, !skipping);
}

static WSABUF whole_buffer(const struct operation *op)
{
    WSABUF buffer;

    buffer.len = (ULONG)op->size;
    buffer.buf = op->data;
    return buffer;
}

struct operation *start_receive(SOCKET s, size_t size)
{
    struct operation *op = operation_new(s, size);
    WSABUF buffer = whole_buffer(op);

    return receive_with(op, &buffer, 1);
}

struct operation *start_receive_into(SOCKET s, WSABUF *buffers, DWORD count)
{
    return receive_with(operation_new(s, 0), buffers, count);
}

void restart_receive(struct operation *op)
{
    WSABUF buffer = whole_buffer(op);

    CHECK(op->ended);
    memset(&op->overlapped, 0, sizeof op->overlapped);
    op->ended = 0;
    receive_with(op, &buffer, 1);
}

struct operation *start_send(SOCKET s, const void *data, size_t size)
{
    struct operation *op = operation_new(s, size);
    WSABUF buffer = whole_buffer(op);

    memcpy(op->data, data, size);
    return send_with(op, &buffer, 1);
}

struct operation *start_send_from(SOCKET s, WSABUF *buffers, DWORD count)
{
    return send_with(operation_new(s, 0), buffers, count);
}

struct operation *start_send_pattern(SOCKET s, size_t size, size_t position)
{
    struct operation *op = operation_new(s, size);
    WSABUF buffer = whole_buffer(op);

    pattern(op->data, size, position);
    return send_with(op, &buffer, 1);
}

BOOL cancel(SOCKET s, struct operation *op)
{
    return CancelIoEx((HANDLE)(ULONG_PTR)s, op != NULL ? &op->overlapped : NULL);
}

/* ---- dequeuing ---- */

static ULONG_PTR key_of(SOCKET s)
{
    return (ULONG_PTR)s + 100000;
}

static void end_by_packet(const OVERLAPPED_ENTRY *entry)
{
    struct operation *op = (struct operation *)entry->lpOverlapped;

    CHECK(op != NULL); /* no case that pumps posts */
    op->packets++;
    CHECK(!op->ended);
    CHECK_EQUAL(entry->lpCompletionKey, key_of(op->socket));
    CHECK((ULONG)entry->Internal == (ULONG)op->overlapped.Internal); /* the core reads it there */
    op->ended = 1;
    op->status = iocp_status(entry);
    op->bytes = entry->dwNumberOfBytesTransferred;
}

ULONG pump(DWORD milliseconds)
{
    OVERLAPPED_ENTRY entries[BATCH];
    ULONG count = 0;

    if (!GetQueuedCompletionStatusEx(port, entries, BATCH, &count, milliseconds, FALSE)) {
        CHECK_EQUAL(GetLastError(), WAIT_TIMEOUT);
        return 0;
    }
    CHECK(count >= 1 && count <= BATCH);
    for (ULONG i = 0; i < count; i++)
        end_by_packet(&entries[i]);
    return count;
}

void pump_all(void)
{
    while (pump(0) > 0)
        continue;
}

int wait_for(struct operation *op)
{
    uint64_t deadline = patience();

    while (!op->ended) {
        CHECK(iocp_now(port) < deadline);
        pump(1000);
    }
    return op->status;
}

int status_of(const OVERLAPPED_ENTRY *entry)
{
    return iocp_status(entry);
}

int is_reset(int status)
{
    return status == WSAECONNRESET || status == WSAECONNABORTED || status == WSAESHUTDOWN;
}

int is_closed_under(int status)
{
    if (ON_WINDOWS && (status == 676 || status == WSAECONNABORTED)) /* wine 8; some versions of Windows */
        return 1;
    return status == ERROR_OPERATION_ABORTED;
}

/* ---- sockets of the port ---- */

static SOCKET keep(SOCKET s, int own)
{
    CHECK(s != INVALID_SOCKET);
    CHECK(kept_count < SOCKETS);
    kept[kept_count].socket = s;
    kept[kept_count++].own = own;
    return s;
}

static void forget(SOCKET s)
{
    for (size_t i = 0; i < kept_count; i++) {
        if (kept[i].socket == s) {
            kept[i] = kept[--kept_count];
            return;
        }
    }
    CHECK(!"the suite keeps this socket");
}

SOCKET adopt(SOCKET s)
{
    CHECK(CreateIoCompletionPort((HANDLE)(ULONG_PTR)s, port, key_of(s), 0) == port);
    if (skipping)
        CHECK(iocp_skip_on_success(s));
    return keep(s, 1);
}

SOCKET new_own(int family)
{
    return adopt(iocp_socket(port, family));
}

void close_own(SOCKET s)
{
    forget(s);
    CHECK_EQUAL(closesocket(s), 0);
}

int own_in_use(SOCKET s)
{
    for (size_t i = 0; i < kept_count; i++) {
        if (kept[i].socket == s && kept[i].own)
            return 1;
    }
    return 0;
}

SOCKET duplicate(SOCKET s)
{
#ifdef _WIN32
    WSAPROTOCOL_INFOW info;

    CHECK_EQUAL(WSADuplicateSocketW(s, GetCurrentProcessId(), &info), 0);
    return WSASocketW(-1, -1, -1, &info, 0, WSA_FLAG_OVERLAPPED);
#else
    return dup(s);
#endif
}

struct address loopback_address(int family, const struct address *with_port)
{
    struct sockaddr_in *in;
    struct sockaddr_in6 *in6;
    struct address at;

    memset(&at, 0, sizeof at);
    in = (struct sockaddr_in *)&at.name;
    in6 = (struct sockaddr_in6 *)&at.name;
    at.name.ss_family = (unsigned short)family;
    if (family == AF_INET) {
        at.length = (int)sizeof *in;
        in->sin_addr.s_addr = htonl(0x7F000001);
    } else {
        at.length = (int)sizeof *in6;
        in6->sin6_addr.s6_addr[15] = 1;
    }
    if (with_port != NULL) /* in the same place for both families */
        in->sin_port = ((const struct sockaddr_in *)&with_port->name)->sin_port;
    return at;
}

static void bind_and_listen(SOCKET s, struct address *at, int family, int backlog)
{
    struct address any = loopback_address(family, NULL);

    CHECK_EQUAL(bind(s, (struct sockaddr *)&any.name, any.length), 0);
    CHECK_EQUAL(listen(s, backlog), 0);
    *at = address_of(s);
}

SOCKET listen_own(struct address *at, int backlog)
{
    SOCKET s = new_own(AF_INET);

    bind_and_listen(s, at, AF_INET, backlog);
    return s;
}

SOCKET adopt_accepted(struct operation *op)
{
    SOCKET s = iocp_accepted(op->placeholder, &op->overlapped);

    CHECK(op->ended && op->status == 0);
    op->accepts = 0;
    CHECK_EQUAL(iocp_update_accepted(s, op->socket), 0);
    return adopt(s);
}

/* One listener serves all pairs of a case: each listener more would cost a port number. */
struct pair connected_pair(void)
{
    SOCKET own = iocp_socket(port, AF_INET);
    struct pair pair;

    if (pairs_listener == INVALID_SOCKET)
        pairs_listener = peer_listen(&pairs_address, AF_INET, 5);
    CHECK_EQUAL(connect(own, (struct sockaddr *)&pairs_address.name, pairs_address.length), 0);
    pair.peer = peer_accept(pairs_listener);
    pair.own = adopt(own);
    return pair;
}

/* ---- plain sockets ---- */

#ifdef _WIN32
#define WOULD_BLOCK WSAEWOULDBLOCK
#define BEGUN WSAEWOULDBLOCK
#define ADDRESS_IN_USE WSAEADDRINUSE
#define poll WSAPoll
#define NO_SIGNAL 0
typedef int io_size;
#else
#include <poll.h>
#include <sys/ioctl.h>
typedef struct pollfd WSAPOLLFD;
#define WOULD_BLOCK EAGAIN
#define BEGUN EINPROGRESS
#define ADDRESS_IN_USE EADDRINUSE
#define ioctlsocket ioctl
#define NO_SIGNAL MSG_NOSIGNAL
typedef size_t io_size;
#endif

SOCKET non_blocking(SOCKET s)
{
#ifdef _WIN32
    u_long on = 1;
#else
    int on = 1;
#endif

    CHECK(s != INVALID_SOCKET);
    CHECK_EQUAL(ioctlsocket(s, FIONBIO, &on), 0);
    return s;
}

SOCKET peer_socket(int family)
{
    return keep(non_blocking(socket(family, SOCK_STREAM, IPPROTO_TCP)), 0);
}

/* The port stays taken: a closed one may be given to the connecting socket itself, and TCP connects that to itself. */
struct address refusing_address(void)
{
    struct address any = loopback_address(AF_INET, NULL);
    SOCKET s = peer_socket(AF_INET);

    CHECK_EQUAL(bind(s, (struct sockaddr *)&any.name, any.length), 0);
    return address_of(s);
}

SOCKET peer_listen(struct address *at, int family, int backlog)
{
    SOCKET s = peer_socket(family);

    bind_and_listen(s, at, family, backlog);
    return s;
}

/* One look at the socket, then one at the port: operations of the port may have to go on first. */
static void wait_until(SOCKET s, short events)
{
    uint64_t deadline = patience();
    WSAPOLLFD look;

    for (;;) {
        memset(&look, 0, sizeof look);
        look.fd = s;
        look.events = events;
        if (poll(&look, 1, 0) > 0)
            return;
        CHECK(iocp_now(port) < deadline);
        pump(1);
    }
}

void peer_wait_readable(SOCKET s)
{
    wait_until(s, POLLIN);
}

int peer_try_connect(SOCKET s, const struct address *to)
{
    return connect(s, (const struct sockaddr *)&to->name, to->length) == 0 || WSAGetLastError() == BEGUN;
}

SOCKET peer_connect(const struct address *to)
{
    SOCKET s = peer_socket(to->name.ss_family);

    CHECK(peer_try_connect(s, to));
    wait_until(s, POLLOUT);
    return s;
}

SOCKET peer_accept(SOCKET listener)
{
    wait_until(listener, POLLIN);
    return keep(non_blocking(accept(listener, NULL, NULL)), 0);
}

size_t peer_send_some(SOCKET s, const void *data, size_t size)
{
    int n = (int)send(s, data, (io_size)size, NO_SIGNAL);

    CHECK(n >= 0 || WSAGetLastError() == WOULD_BLOCK || is_reset((int)WSAGetLastError()));
    return n > 0 ? (size_t)n : 0;
}

void peer_send(SOCKET s, const void *data, size_t size)
{
    size_t done = 0;

    while (done < size) {
        wait_until(s, POLLOUT);
        done += peer_send_some(s, (const char *)data + done, size - done);
    }
}

void peer_send_pattern(SOCKET s, size_t size, size_t position)
{
    char chunk[4096];

    while (size > 0) {
        size_t step = size < sizeof chunk ? size : sizeof chunk;

        pattern(chunk, step, position);
        peer_send(s, chunk, step);
        position += step;
        size -= step;
    }
}

int peer_receive_some(SOCKET s, void *data, size_t size)
{
    int n = (int)recv(s, data, (io_size)size, 0);

    if (n >= 0)
        return n;
    return WSAGetLastError() == WOULD_BLOCK ? PEER_NOTHING : PEER_RESET;
}

int peer_receive_next(SOCKET s, void *data, size_t size)
{
    int n;

    do {
        wait_until(s, POLLIN);
        n = peer_receive_some(s, data, size);
    } while (n == PEER_NOTHING);
    return n;
}

void peer_expect(SOCKET s, const void *data, size_t size)
{
    char chunk[4096];
    size_t done = 0;

    while (done < size) {
        size_t step = size - done < sizeof chunk ? size - done : sizeof chunk;
        int n = peer_receive_next(s, chunk, step);

        CHECK(n > 0);
        CHECK(memcmp(chunk, (const char *)data + done, (size_t)n) == 0);
        done += (size_t)n;
    }
}

void peer_expect_pattern(SOCKET s, size_t size, size_t position)
{
    static char chunk[65536];

    while (size > 0) {
        int n = peer_receive_next(s, chunk, size < sizeof chunk ? size : sizeof chunk);

        CHECK(n > 0);
        CHECK(is_pattern(chunk, (size_t)n, position));
        position += (size_t)n;
        size -= (size_t)n;
    }
}

void peer_finish(SOCKET s)
{
    CHECK_EQUAL(iocp_shutdown_send(s), 0);
}

void peer_urgent(SOCKET s, char byte)
{
    CHECK_EQUAL(send(s, &byte, 1, MSG_OOB | NO_SIGNAL), 1);
}

void peer_small_buffers(SOCKET s)
{
    int size = 8192;

    CHECK_EQUAL(setsockopt(s, SOL_SOCKET, SO_RCVBUF, (const char *)&size, sizeof size), 0);
    CHECK_EQUAL(setsockopt(s, SOL_SOCKET, SO_SNDBUF, (const char *)&size, sizeof size), 0);
}

void peer_close(SOCKET s)
{
    forget(s);
    CHECK_EQUAL(closesocket(s), 0);
}

void peer_reset(SOCKET s)
{
    iocp_linger_zero(s);
    peer_close(s);
}

struct address address_of(SOCKET s)
{
    struct address at;
    socklen_t length = sizeof at.name;

    CHECK_EQUAL(getsockname(s, (struct sockaddr *)&at.name, &length), 0);
    at.length = (int)length;
    return at;
}

struct address peer_address_of(SOCKET s)
{
    struct address at;
    socklen_t length = sizeof at.name;

    CHECK_EQUAL(getpeername(s, (struct sockaddr *)&at.name, &length), 0);
    at.length = (int)length;
    return at;
}

/* ---- the rest ---- */

static char pattern_byte(size_t position)
{
    return (char)(position * 2654435761u >> 13);
}

void pattern(char *data, size_t size, size_t position)
{
    for (size_t i = 0; i < size; i++)
        data[i] = pattern_byte(position + i);
}

int is_pattern(const char *data, size_t size, size_t position)
{
    for (size_t i = 0; i < size; i++) {
        if (data[i] != pattern_byte(position + i))
            return 0;
    }
    return 1;
}

void random_seed(uint32_t seed)
{
    random_state = seed * 2654435761u | 1;
}

uint32_t random_below(uint32_t limit)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    random_state ^= random_state << 5;
    return random_state % limit;
}

void want_ipv6(void)
{
    SOCKET s = socket(AF_INET6, SOCK_STREAM, IPPROTO_TCP);
    struct address at = loopback_address(AF_INET6, NULL);

    if (s == INVALID_SOCKET)
        skip("no IPv6 here");
    if (bind(s, (struct sockaddr *)&at.name, at.length) != 0 && WSAGetLastError() != ADDRESS_IN_USE)
        skip("IPv6 has no loopback address here");
    closesocket(s);
}

void want_descriptors(unsigned count)
{
#ifdef _WIN32
    (void)count;
#else
    struct rlimit limit;

    CHECK_EQUAL(getrlimit(RLIMIT_NOFILE, &limit), 0);
    if (limit.rlim_cur >= count)
        return;
    limit.rlim_cur = count;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        skip("too few descriptors are allowed here");
#endif
}

struct thread {
    void (*run)(void *);
    void *argument;
#ifdef _WIN32
    HANDLE handle;
#else
    pthread_t handle;
#endif
};

#ifdef _WIN32
static unsigned __stdcall thread_main(void *self)
{
    struct thread *thread = self;

    thread->run(thread->argument);
    return 0;
}
#else
static void *thread_main(void *self)
{
    struct thread *thread = self;

    thread->run(thread->argument);
    return NULL;
}
#endif

struct thread *thread_start(void (*run)(void *), void *argument)
{
    struct thread *thread = malloc(sizeof *thread);

    CHECK(thread != NULL);
    thread->run = run;
    thread->argument = argument;
#ifdef _WIN32
    thread->handle = (HANDLE)_beginthreadex(NULL, 0, thread_main, thread, 0, NULL);
    CHECK(thread->handle != NULL);
#else
    CHECK_EQUAL(pthread_create(&thread->handle, NULL, thread_main, thread), 0);
#endif
    return thread;
}

void thread_join(struct thread *thread)
{
#ifdef _WIN32
    CHECK(WaitForSingleObject(thread->handle, INFINITE) == WAIT_OBJECT_0);
    CloseHandle(thread->handle);
#else
    CHECK_EQUAL(pthread_join(thread->handle, NULL), 0);
#endif
    free(thread);
}
