/* contract --list | --backends | --backend NAME [--packets] [--seed N] [--seconds N] CASE...
 *
 * --packets leaves FILE_SKIP_COMPLETION_PORT_ON_SUCCESS off, so that every success posts a packet.
 * Exit: 0 the cases hold, 1 one does not, 2 usage, 77 the case cannot run here (the reason is on stdout).
 * Threads: on Windows a watchdog thread ends the process when a case hangs; on Linux it is alarm().
 */
#include <stdio.h>
#ifndef _WIN32
#include <unistd.h>
#endif

#include "contract.h"

static const struct test_case *const tables[] = {
    post_cases,    associate_cases, accept_cases, connect_cases, receive_cases,
    send_cases,    cancel_cases,    close_cases,  shared_cases,  storm_cases,
#ifdef _WIN32
    windows_cases,
#else
    linux_cases,
#endif
    NULL,
};

#ifdef _WIN32
static DWORD WINAPI watchdog(void *milliseconds)
{
    Sleep((DWORD)(ULONG_PTR)milliseconds);
    fprintf(stderr, "the case hangs\n");
    TerminateProcess(GetCurrentProcess(), 1);
    return 0;
}

static void watch(unsigned seconds)
{
    CloseHandle(CreateThread(NULL, 0, watchdog, (void *)(ULONG_PTR)(seconds * 1000), 0, NULL));
}
#else
static void watch(unsigned seconds)
{
    alarm(seconds);
}
#endif

static const struct test_case *find_case(const char *name)
{
    for (size_t t = 0; tables[t] != NULL; t++) {
        for (const struct test_case *c = tables[t]; c->name != NULL; c++) {
            if (strcmp(c->name, name) == 0)
                return c;
        }
    }
    return NULL;
}

static int list_cases(void)
{
    for (size_t t = 0; tables[t] != NULL; t++) {
        for (const struct test_case *c = tables[t]; c->name != NULL; c++)
            puts(c->name);
    }
    return 0;
}

static int list_backends(void)
{
    for (int i = 0; iocp_backend_name(i) != NULL; i++) {
        const char *missing = iocp_backend_missing(i);

        printf("%s\t%s\n", iocp_backend_name(i), missing != NULL ? missing : "");
    }
    return 0;
}

static int usage(const char *what)
{
    fprintf(stderr, "%s\nusage: contract --list | --backends | --backend NAME [--packets] [--seed N] [--seconds N] CASE...\n",
            what);
    return 2;
}

static int run_case(const char *name, uint32_t seed)
{
    const struct test_case *c = find_case(name);

    if (c == NULL)
        return usage(name);
    random_seed(seed);
    case_begin();
    c->run();
    case_end();
    printf("ok %s\n", name);
    return 0;
}

int main(int argc, char **argv)
{
    unsigned seconds = 120;
    uint32_t seed = 1;
    int packets = 0, result = 0;

    setvbuf(stdout, NULL, _IONBF, 0);
    if (iocp_startup() != 0)
        return usage("iocp_startup failed");
    backend = iocp_backend_find("auto");
    for (int i = 1; i < argc && result == 0; i++) {
        if (strcmp(argv[i], "--list") == 0)
            return list_cases();
        if (strcmp(argv[i], "--backends") == 0)
            return list_backends();
        if (strcmp(argv[i], "--packets") == 0) {
            packets = 1;
        } else if (strcmp(argv[i], "--backend") == 0 && i + 1 < argc) {
            backend = iocp_backend_find(argv[++i]);
        } else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc) {
            seed = (uint32_t)strtoul(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--seconds") == 0 && i + 1 < argc) {
            seconds = (unsigned)strtoul(argv[++i], NULL, 10);
        } else {
            if (backend < 0)
                return usage("no such backend");
            if (iocp_backend_missing(backend) != NULL)
                skip(iocp_backend_missing(backend));
            watch(seconds);
            skipping = !packets;
            result = run_case(argv[i], seed);
        }
    }
    return result;
}
