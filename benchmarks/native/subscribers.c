/* Receivers that cost the sender as little as receivers can.
 *
 *   subscribers PORT COUNT [HANDSHAKE JOIN MARKER]
 *
 * Opens COUNT sockets to 127.0.0.1:PORT. With the three files' worth of arguments (two file names
 * and a text) each socket sends the handshake, waits for the end of the answer's head, sends the
 * join and waits for the text. Then it prints "ready" and takes bytes without looking at them
 * (MSG_TRUNC: they are not even copied), once a millisecond and never woken by their arrival: a
 * client on another machine costs a server no wake-up either.
 *
 * Each line on standard input is answered with "TOTAL LEAST CLOSED": bytes taken since "ready" by
 * all sockets, by the one that got the fewest, and sockets that the server has ended. The end of
 * standard input ends it; so does its own alarm.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { LIFETIME_S = 300, STEP_NS = 1000000, EVENTS = 1024, HEAD = 65536 };

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static char *slurp(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    char *text = malloc(HEAD);
    if (!file || !text)
        fail(path);
    *size = fread(text, 1, HEAD, file);
    fclose(file);
    return text;
}

static void send_all(int fd, const char *text, size_t size)
{
    while (size) {
        ssize_t sent = send(fd, text, size, 0);
        if (sent < 0)
            fail("send");
        text += sent;
        size -= (size_t)sent;
    }
}

/* Read until a text was seen; the socket blocks. */
static void await_text(int fd, const char *marker)
{
    static char seen[HEAD];
    size_t size = 0;
    while (!memmem(seen, size, marker, strlen(marker))) {
        ssize_t got = size < HEAD ? recv(fd, seen + size, HEAD - size, 0) : 0;
        if (got <= 0) {
            fprintf(stderr, "no \"%s\" came: %.*s\n", marker, (int)size, seen);
            exit(1);
        }
        size += (size_t)got;
    }
}

static int connect_to(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address))
        fail("connect");
    return fd;
}

static void subscribe(const int *fds, int count, char **names)
{
    size_t handshake_size, join_size;
    char *handshake = slurp(names[0], &handshake_size), *join = slurp(names[1], &join_size);
    for (int i = 0; i < count; i++)
        send_all(fds[i], handshake, handshake_size);
    for (int i = 0; i < count; i++) {
        await_text(fds[i], "\r\n\r\n");
        send_all(fds[i], join, join_size);
    }
    for (int i = 0; i < count; i++)
        await_text(fds[i], names[2]);
}

/* Take everything that waits in one socket; return whether the server has ended it. */
static int take(int fd, long long *taken)
{
    static char nowhere[1 << 20];
    for (;;) {
        ssize_t got = recv(fd, nowhere, sizeof nowhere, MSG_TRUNC | MSG_DONTWAIT);
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            return 0;
        if (got <= 0)
            return 1;
        *taken += got;
    }
}

static void report(const long long *taken, int count, int closed)
{
    long long total = 0, least = count ? taken[0] : 0;
    for (int i = 0; i < count; i++) {
        total += taken[i];
        least = taken[i] < least ? taken[i] : least;
    }
    printf("%lld %lld %d\n", total, least, closed);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    int count = argc > 2 ? atoi(argv[2]) : 0, closed = 0;
    int *fds = calloc((size_t)count + 1, sizeof *fds), epoll = epoll_create1(0);
    long long *taken = calloc((size_t)count + 1, sizeof *taken);
    struct epoll_event events[EVENTS];
    struct timespec step = {.tv_nsec = STEP_NS};
    if (count < 1 || !fds || !taken || epoll < 0)
        fail("usage: subscribers PORT COUNT [HANDSHAKE JOIN MARKER]");
    alarm(LIFETIME_S);
    for (int i = 0; i < count; i++)
        fds[i] = connect_to(atoi(argv[1]));
    if (argc > 5)
        subscribe(fds, count, argv + 3);
    for (int i = 0; i < count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)i};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, fds[i], &event))
            fail("epoll_ctl");
    }
    printf("ready\n");
    fflush(stdout);
    for (;;) {
        struct pollfd input = {.fd = 0, .events = POLLIN};
        if (poll(&input, 1, 0) > 0) {
            char line[64];
            if (read(0, line, sizeof line) <= 0)
                return 0;
            report(taken, count, closed);
        }
        int ready = epoll_wait(epoll, events, EVENTS, 0);
        for (int i = 0; i < ready; i++) {
            uint32_t each = events[i].data.u32;
            if (take(fds[each], &taken[each])) {
                epoll_ctl(epoll, EPOLL_CTL_DEL, fds[each], NULL);
                closed++;
            }
        }
        if (ready < EVENTS)
            nanosleep(&step, NULL);
    }
}
