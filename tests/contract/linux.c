/* What only Linux can show: descriptors that run out, foreign threads, signals, forked children. */
#include "contract.h"

#ifndef _WIN32
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { FILLERS = 16 };

/* Allows FILLERS descriptors more than are open, and gives back the limit as it was. */
static struct rlimit limit_descriptors(void)
{
    struct rlimit before, few;
    int first_free = dup(STDIN_FILENO);

    CHECK(first_free >= 0);
    close(first_free);
    CHECK_EQUAL(getrlimit(RLIMIT_NOFILE, &before), 0);
    few = before;
    few.rlim_cur = (rlim_t)first_free + FILLERS;
    CHECK_EQUAL(setrlimit(RLIMIT_NOFILE, &few), 0);
    return before;
}

static int fill_descriptors(int *fillers)
{
    int count = 0;

    while ((fillers[count] = dup(STDIN_FILENO)) >= 0)
        CHECK(++count < FILLERS + 1);
    CHECK_EQUAL(errno, EMFILE);
    return count;
}

static void an_accept_without_descriptors_fails_and_a_later_one_works(void)
{
    struct address at;
    SOCKET listener = listen_own(&at, 5), clients[3];
    struct operation *accept;
    struct rlimit before;
    int fillers[FILLERS + 1], count;

    for (int i = 0; i < 3; i++) /* one for each accept: under valgrind a failed accept takes its client away */
        clients[i] = peer_socket(AF_INET);
    before = limit_descriptors();
    accept = start_accept(listener);
    CHECK_EQUAL(pump(0), 0);
    count = fill_descriptors(fillers);
    CHECK(peer_try_connect(clients[0], &at));
    CHECK_EQUAL(wait_for(accept), WSAEMFILE);
    CHECK(peer_try_connect(clients[1], &at));
    CHECK_EQUAL(wait_for(start_accept(listener)), WSAEMFILE);
    while (count > 0)
        close(fillers[--count]);
    CHECK(peer_try_connect(clients[2], &at));
    accept = start_accept(listener);
    CHECK_EQUAL(wait_for(accept), 0);
    CHECK_EQUAL(setrlimit(RLIMIT_NOFILE, &before), 0);
    adopt_accepted(accept);
}

static void *dequeue_as_a_stranger(void *unused)
{
    (void)unused;
    pump(0);
    return NULL;
}

static void start_as_a_stranger(void)
{
    pthread_t thread;

    pump(0); /* the port is ours now */
    pthread_create(&thread, NULL, dequeue_as_a_stranger, NULL);
    pthread_join(thread, NULL);
    _exit(0);
}

static void a_foreign_thread_in_a_port_aborts_the_process(void)
{
    int status;
    pid_t child = fork();

    CHECK(child >= 0);
    if (child == 0) {
        HANDLE forked = another_port(); /* the parent's stays untouched */

        port = forked;
        signal(SIGABRT, SIG_DFL);
        close(STDERR_FILENO);
        start_as_a_stranger();
    }
    CHECK_EQUAL(waitpid(child, &status, 0), child);
    CHECK(WIFSIGNALED(status));
    CHECK_EQUAL(WTERMSIG(status), SIGABRT);
}

static volatile sig_atomic_t signals;

static void count_signal(int number)
{
    (void)number;
    signals++;
}

/* ITIMER_REAL would be simplest, but its signal is the watchdog's. */
static timer_t interrupt_often(void)
{
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    struct itimerspec often = {{0, 2000000}, {0, 2000000}};
    timer_t timer;

    CHECK_EQUAL(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
    CHECK_EQUAL(timer_settime(timer, 0, &often, NULL), 0);
    return timer;
}

static void signals_neither_end_nor_fail_a_dequeue(void)
{
    struct sigaction action = {.sa_handler = count_signal};
    uint64_t before = iocp_now(port);
    timer_t timer;

    CHECK_EQUAL(sigaction(SIGUSR1, &action, NULL), 0);
    timer = interrupt_often();
    CHECK_EQUAL(pump(200), 0); /* pump fails on any error but a timeout */
    CHECK_EQUAL(timer_delete(timer), 0);
    CHECK(iocp_now(port) - before >= 200000000);
    CHECK(signals > 0);
}

static void *post_to_the_port(void *unused)
{
    (void)unused;
    CHECK(PostQueuedCompletionStatus(port, 0, 0, NULL));
    return NULL;
}

static void be_woken(void)
{
    OVERLAPPED_ENTRY entry;
    ULONG count;
    pthread_t thread;

    CHECK_EQUAL(pthread_create(&thread, NULL, post_to_the_port, NULL), 0);
    CHECK(GetQueuedCompletionStatusEx(port, &entry, 1, &count, 20000, FALSE));
    CHECK_EQUAL(pthread_join(thread, NULL), 0);
}

/* Old wake-ups, input that nobody reads, ends and urgent bytes: none of them keeps a dequeue awake. */
static void a_dequeue_with_nothing_to_do_uses_no_processor_time(void)
{
    struct pair unread = connected_pair(), urgent = connected_pair();
    clock_t before;

    CHECK_EQUAL(wait_for(start_send(unread.own, "x", 1)), 0); /* now the port watches them */
    CHECK_EQUAL(wait_for(start_send(urgent.own, "x", 1)), 0);
    for (int i = 0; i < 30; i++)
        be_woken();
    peer_send(unread.peer, "unread", 6);
    peer_finish(unread.peer);
    peer_urgent(urgent.peer, '!');
    before = clock();
    CHECK_EQUAL(pump(500), 0);
    CHECK(clock() - before < CLOCKS_PER_SEC / 4);
}

struct keeper {
    pid_t child;
    int hold;
};

/* By a descriptor of its own: what the port has the child closes itself. */
static struct keeper child_that_keeps(SOCKET s)
{
    struct keeper keeper;
    int hold[2], copy = dup(s);

    CHECK_EQUAL(pipe(hold), 0);
    keeper.child = fork();
    CHECK(keeper.child >= 0);
    if (keeper.child == 0) {
        char byte;

        close(hold[1]);
        _exit(read(hold[0], &byte, 1) != 0); /* until the parent lets go */
    }
    close(copy);
    close(hold[0]);
    keeper.hold = hold[1];
    return keeper;
}

static void end_child(struct keeper keeper)
{
    int status;

    close(keeper.hold);
    CHECK_EQUAL(waitpid(keeper.child, &status, 0), keeper.child);
    CHECK_EQUAL(status, 0);
}

static void a_child_that_keeps_our_socket_is_not_heard_after_we_close_it(void)
{
    struct pair old = connected_pair(), new;
    struct operation *receive = start_receive(old.own, 10), *fresh;
    struct keeper keeper;

    pump_all();
    keeper = child_that_keeps(old.own);
    close_own(old.own);
    CHECK_EQUAL(wait_for(receive), ERROR_OPERATION_ABORTED);
    new = connected_pair(); /* it has the old one's number, and its state in the port */
    fresh = start_receive(new.own, 10);
    peer_send(old.peer, "stale", 5);
    pump_all();
    CHECK(!fresh->ended);
    peer_send(new.peer, "fresh", 5);
    CHECK_EQUAL(wait_for(fresh), 0);
    CHECK(memcmp(fresh->data, "fresh", 5) == 0);
    end_child(keeper);
}

static void a_child_that_keeps_our_socket_is_not_heard_when_its_memory_has_gone_back(void)
{
    struct pair old = connected_pair();
    struct operation *receive = start_receive(old.own, 10);
    struct keeper keeper;

    pump_all();
    keeper = child_that_keeps(old.own);
    close_own(old.own);
    CHECK_EQUAL(wait_for(receive), ERROR_OPERATION_ABORTED);
    iocp_trim(port);
    peer_send(old.peer, "stale", 5);
    CHECK_EQUAL(pump(50), 0);
    end_child(keeper);
}

static void *own_and_leave(void *other)
{
    OVERLAPPED_ENTRY entry;
    ULONG count;

    CHECK(!GetQueuedCompletionStatusEx(other, &entry, 1, &count, 0, FALSE));
    return NULL;
}

static void a_thread_that_closes_a_port_of_another_keeps_its_own(void)
{
    struct pair pair = connected_pair();
    struct operation *receive = start_receive(pair.own, 5);
    HANDLE other = another_port();
    pthread_t thread;

    pump(0); /* ours is the first port of this thread, as theirs is of that one */
    CHECK_EQUAL(pthread_create(&thread, NULL, own_and_leave, other), 0);
    CHECK_EQUAL(pthread_join(thread, NULL), 0);
    CHECK(CloseHandle(other));
    peer_send(pair.peer, "still", 5);
    CHECK_EQUAL(wait_for(receive), 0);
    CHECK(memcmp(receive->data, "still", 5) == 0);
}

/* A thread may register so many rings; a port of io_uring has one registered, if there is room. */
static unsigned rings_that_can_be_registered(void)
{
    enum { IORING_REGISTER_RING_FDS = 20, IORING_UNREGISTER_RING_FDS = 21, MOST = 64 };
    struct {
        unsigned offset, reserved;
        uint64_t data;
    } registered[MOST];
    unsigned char parameters[120] = {0}; /* struct io_uring_params, of which all is 0 */
    int ring = (int)syscall(SYS_io_uring_setup, 1, parameters);
    unsigned count = 0;

    CHECK(ring >= 0);
    do {
        registered[count].offset = ~0u;
        registered[count].reserved = 0;
        registered[count].data = (uint64_t)ring;
    } while (count < MOST && syscall(SYS_io_uring_register, ring, IORING_REGISTER_RING_FDS, &registered[count], 1) == 1 &&
             ++count < MOST);
    for (unsigned i = 0; i < count; i++) {
        registered[i].data = 0;
        CHECK_EQUAL(syscall(SYS_io_uring_register, ring, IORING_UNREGISTER_RING_FDS, &registered[i], 1), 1);
    }
    close(ring);
    return count;
}

static void a_thread_that_opens_and_closes_many_ports_can_register_as_many_rings_as_before(void)
{
    unsigned before;

    if (strcmp(iocp_backend_name(backend), "uring") != 0)
        skip("it has no rings");
    pump(0);
    before = rings_that_can_be_registered();
    CHECK(before > 0);
    for (int i = 0; i < 100; i++) {
        HANDLE other = another_port();

        own_and_leave(other);
        CHECK(CloseHandle(other));
    }
    CHECK_EQUAL(rings_that_can_be_registered(), before);
}

static void a_listeners_port_is_free_when_it_is_closed_though_accepts_were_pending(void)
{
    for (int i = 0; i < 50; i++) {
        struct address at;
        SOCKET listener = listen_own(&at, 5), next = socket(AF_INET, SOCK_STREAM, 0);

        for (int j = 0; j < 4; j++)
            start_accept(listener);
        pump(0);
        close_own(listener);
        CHECK_EQUAL(bind(next, (struct sockaddr *)&at.name, at.length), 0);
        close(next);
        pump_all();
    }
}

static int is_nonblocking(SOCKET s)
{
    return (fcntl(s, F_GETFL) & O_NONBLOCK) != 0;
}

static struct pair pair_with_flags(int flags)
{
    struct address at;
    SOCKET listener = peer_listen(&at, AF_INET, 1), own = iocp_socket(port, AF_INET);
    struct pair pair;

    CHECK_EQUAL(connect(own, (struct sockaddr *)&at.name, at.length), 0);
    CHECK_EQUAL(fcntl(own, F_SETFL, flags), 0);
    pair.peer = peer_accept(listener);
    pair.own = adopt(own);
    return pair;
}

static void a_connected_socket_stays_blocking_or_not_as_it_was(void)
{
    for (int flags = 0; flags <= O_NONBLOCK; flags += O_NONBLOCK) {
        struct pair pair = pair_with_flags(flags);
        struct operation *receive = start_receive(pair.own, 5);

        CHECK_EQUAL(pump(0), 0);
        CHECK(!receive->ended);
        peer_send(pair.peer, "hello", 5);
        CHECK_EQUAL(wait_for(receive), 0);
        CHECK_EQUAL(wait_for(start_send(pair.own, "hello", 5)), 0);
        peer_expect(pair.peer, "hello", 5);
        CHECK_EQUAL(is_nonblocking(pair.own), flags == O_NONBLOCK);
    }
}

static void a_listening_socket_that_does_not_block_stays_so(void)
{
    struct address at;
    SOCKET listener = adopt(dup(peer_listen(&at, AF_INET, 5))); /* it was non-blocking before */
    struct operation *accept = start_accept(listener);

    CHECK_EQUAL(pump(0), 0);
    CHECK(is_nonblocking(listener));
    peer_connect(&at);
    CHECK_EQUAL(wait_for(accept), 0);
    CHECK(is_nonblocking(listener));
}

static void too_many_buffers_fail_at_the_start(void)
{
    struct pair pair = connected_pair();
    static WSABUF buffers[1025];
    struct operation *send = start_send_from(pair.own, buffers, 1025);

    CHECK_EQUAL(send->how, FAILED);
    CHECK_EQUAL(send->status, EMSGSIZE);
}

/* The first buffer goes, or most of it; the second is memory that nobody may read. */
static struct operation *send_half_of(SOCKET s, size_t half, void *unreadable)
{
    struct operation *holder = operation_new(s, half);
    WSABUF buffers[2] = {{.buf = holder->data, .len = (ULONG)half}, {.buf = unreadable, .len = (ULONG)half}};

    holder->ended = 1; /* it only holds the data until the case ends */
    pattern(holder->data, half, 0);
    return start_send_from(s, buffers, 2);
}

static void a_send_that_fails_after_a_part_says_by_its_packet_how_much_has_gone(void)
{
    const size_t half = 65536;
    void *unreadable = mmap(NULL, half, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    const char *preloaded = getenv("LD_PRELOAD");
    struct pair pair = connected_pair();
    struct operation *send;
    char byte;

    CHECK(unreadable != MAP_FAILED);
    if (preloaded != NULL && strstr(preloaded, "vgpreload") != NULL)
        skip("valgrind takes the fault for an error of ours");
    send = send_half_of(pair.own, half, unreadable);
    CHECK_EQUAL(send->how, PENDING);
    CHECK_EQUAL(wait_for(send), EFAULT);
    CHECK(send->bytes > 0 && send->bytes <= half);
    peer_expect_pattern(pair.peer, send->bytes, 0);
    CHECK_EQUAL(peer_receive_some(pair.peer, &byte, 1), PEER_NOTHING);
    munmap(unreadable, half);
}

static void an_operation_on_a_socket_of_no_port_fails_at_its_start(void)
{
    struct address at;
    struct operation *receive = start_receive(peer_listen(&at, AF_INET, 1), 10);

    CHECK_EQUAL(receive->how, FAILED);
    CHECK_EQUAL(receive->status, ENOTSOCK);
}

const struct test_case linux_cases[] = {
    CASE(an_accept_without_descriptors_fails_and_a_later_one_works),
    CASE(a_foreign_thread_in_a_port_aborts_the_process),
    CASE(signals_neither_end_nor_fail_a_dequeue),
    CASE(a_dequeue_with_nothing_to_do_uses_no_processor_time),
    CASE(a_child_that_keeps_our_socket_is_not_heard_after_we_close_it),
    CASE(a_child_that_keeps_our_socket_is_not_heard_when_its_memory_has_gone_back),
    CASE(a_thread_that_closes_a_port_of_another_keeps_its_own),
    CASE(a_thread_that_opens_and_closes_many_ports_can_register_as_many_rings_as_before),
    CASE(a_listeners_port_is_free_when_it_is_closed_though_accepts_were_pending),
    CASE(a_connected_socket_stays_blocking_or_not_as_it_was),
    CASE(a_listening_socket_that_does_not_block_stays_so),
    CASE(too_many_buffers_fail_at_the_start),
    CASE(a_send_that_fails_after_a_part_says_by_its_packet_how_much_has_gone),
    CASE(an_operation_on_a_socket_of_no_port_fails_at_its_start),
    END_OF_CASES,
};
#endif
