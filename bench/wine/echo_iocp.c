/* The floor on Windows: an echo server on a completion port, and its client, in one process.
 *
 *     echo_iocp ECHOES
 *
 * The server is a thread that serves one connection, with skip-on-success: an operation that succeeds at once posts no
 * packet. The client is the main thread, with blocking calls: a send and a recv for each echo,
 * and a pause before it, so that the server waits by then: the calls do not depend on who is faster.
 * Ownership: the buffer is the kernel's while an operation is in flight. Threads: two, which share the listening socket.
 */
#include <winsock2.h>
#include <windows.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MESSAGE = 14, PAUSE = 3 /* ms */ };

static char buffer[4096];

static void die(const char *what)
{
    fprintf(stderr, "%s: %d\n", what, WSAGetLastError());
    exit(EXIT_FAILURE);
}

/* Until the operation has moved *bytes; result is what its call returned. */
static void finish(HANDLE port, int result, DWORD *bytes)
{
    ULONG_PTR key;
    OVERLAPPED *overlapped;

    if (result == 0)
        return;
    if (GetLastError() != WSA_IO_PENDING) /* what WSAGetLastError() calls, and so one call less */
        die("start");
    if (!GetQueuedCompletionStatus(port, bytes, &key, &overlapped, INFINITE))
        die("GetQueuedCompletionStatus");
}

static DWORD WINAPI serve(void *argument)
{
    SOCKET peer = accept(*(SOCKET *)argument, NULL, NULL);
    HANDLE port = CreateIoCompletionPort((HANDLE)peer, NULL, 0, 1);

    if (port == NULL || !SetFileCompletionNotificationModes((HANDLE)peer, FILE_SKIP_COMPLETION_PORT_ON_SUCCESS))
        die("port");
    for (;;) {
        OVERLAPPED overlapped = {0};
        WSABUF all = {sizeof buffer, buffer};
        DWORD flags = 0, bytes = 0;

        finish(port, WSARecv(peer, &all, 1, &bytes, &flags, &overlapped, NULL), &bytes);
        if (bytes == 0)
            return 0;
        memset(&overlapped, 0, sizeof overlapped);
        all.len = bytes;
        finish(port, WSASend(peer, &all, 1, &bytes, 0, &overlapped, NULL), &bytes);
    }
}

static SOCKET start_listening(struct sockaddr_in *address)
{
    int length = sizeof *address;
    SOCKET listener = WSASocketW(AF_INET, SOCK_STREAM, 0, NULL, 0, WSA_FLAG_OVERLAPPED);

    if (listener == INVALID_SOCKET || bind(listener, (struct sockaddr *)address, sizeof *address) != 0 ||
        listen(listener, 1) != 0 || getsockname(listener, (struct sockaddr *)address, &length) != 0)
        die("listen");
    return listener;
}

static void echo(SOCKET s, long echoes)
{
    char sent[MESSAGE] = "fourteen bytes", back[MESSAGE];

    for (long i = 0; i < echoes; i++) {
        sent[0] = (char)i;
        Sleep(PAUSE);
        if (send(s, sent, MESSAGE, 0) != MESSAGE || recv(s, back, MESSAGE, 0) != MESSAGE)
            die("echo");
        if (memcmp(sent, back, MESSAGE) != 0) {
            fprintf(stderr, "a byte was wrong\n");
            exit(EXIT_FAILURE);
        }
    }
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    long echoes = argc == 2 ? atol(argv[1]) : 0;
    WSADATA data;
    SOCKET listener, client;
    HANDLE server;

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (WSAStartup(MAKEWORD(2, 2), &data) != 0)
        die("WSAStartup");
    listener = start_listening(&address);
    server = CreateThread(NULL, 0, serve, &listener, 0, NULL);
    client = socket(AF_INET, SOCK_STREAM, 0);
    if (server == NULL || connect(client, (struct sockaddr *)&address, sizeof address) != 0)
        die("connect");
    echo(client, echoes);
    closesocket(client);
    WaitForSingleObject(server, INFINITE);
    printf("echoed %ld\n", echoes);
    return EXIT_SUCCESS;
}
