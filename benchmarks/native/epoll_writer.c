/* What a fan-out costs at least: the same bytes to the same number of sockets, and nothing else.
 *
 *   epoll_writer COUNT FRAME_FILE WRITES_PER_S WRITES
 *
 * Listens on a free port of 127.0.0.1, prints it, accepts COUNT sockets and prints "ready". After a
 * line on standard input it writes the whole file to every socket, WRITES_PER_S times a second,
 * WRITES times: one timer, one write(2) per socket, what the kernel does not take is written when
 * epoll says so. Then it prints its processor time in microseconds since that line, and ends.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { LIFETIME_S = 300, EVENTS = 1024, TIMER = -1 };

struct client {
    int fd;
    size_t owed;
};

static char *frame;
static size_t frame_size;
static int epoll;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static long long cpu_us(void)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000LL + used.ru_utime.tv_usec +
           used.ru_stime.tv_usec;
}

static void watch(struct client *client, int index, uint32_t what)
{
    struct epoll_event event = {.events = what, .data.u64 = (uint64_t)index};
    if (epoll_ctl(epoll, EPOLL_CTL_MOD, client->fd, &event))
        fail("epoll_ctl");
}

/* Write what is owed, from the place in the frame where the last write stopped. */
static void write_owed(struct client *client, int index, int was_waiting)
{
    while (client->owed) {
        size_t left = client->owed % frame_size ? client->owed % frame_size : frame_size;
        ssize_t sent = write(client->fd, frame + frame_size - left, left);
        if (sent < 0 && errno != EAGAIN)
            fail("write");
        if (sent < 0)
            break;
        client->owed -= (size_t)sent;
    }
    if (client->owed && !was_waiting)
        watch(client, index, EPOLLOUT);
    if (!client->owed && was_waiting)
        watch(client, index, 0);
}

static void tick(struct client *clients, int count)
{
    for (int i = 0; i < count; i++) {
        int was_waiting = clients[i].owed != 0;
        clients[i].owed += frame_size;
        if (!was_waiting)
            write_owed(&clients[i], i, 0);
    }
}

static int listen_on_free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) || listen(fd, 2048) ||
        getsockname(fd, (struct sockaddr *)&address, &size))
        fail("listen");
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static void accept_all(int listener, struct client *clients, int count)
{
    int yes = 1;
    for (int i = 0; i < count; i++) {
        struct epoll_event event = {.events = 0, .data.u64 = (uint64_t)i};
        clients[i].fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
        if (clients[i].fd < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, clients[i].fd, &event) ||
            setsockopt(clients[i].fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes))
            fail("accept");
    }
}

static int start_timer(long per_s)
{
    long period_ns = 1000000000L / per_s;
    struct timespec period = {period_ns / 1000000000L, period_ns % 1000000000L};
    struct itimerspec timing = {period, period};
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)TIMER};
    int timer = timerfd_create(CLOCK_MONOTONIC, 0);
    if (timer < 0 || timerfd_settime(timer, 0, &timing, NULL) ||
        epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &event))
        fail("timer");
    return timer;
}

static void run(struct client *clients, int count, int timer, long writes)
{
    struct epoll_event events[EVENTS];
    int waiting = 0;
    for (long done = 0; done < writes || waiting;) {
        int ready = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            if (events[i].data.u64 != (uint64_t)TIMER) {
                int index = (int)events[i].data.u64;
                write_owed(&clients[index], index, 1);
                continue;
            }
            uint64_t due;
            if (read(timer, &due, sizeof due) != sizeof due)
                fail("timer");
            for (; due && done < writes; due--, done++)
                tick(clients, count);
        }
        waiting = 0;
        for (int i = 0; done >= writes && i < count; i++)
            waiting += clients[i].owed != 0;
    }
}

int main(int argc, char **argv)
{
    if (argc != 5)
        fail("usage: epoll_writer COUNT FRAME_FILE WRITES_PER_S WRITES");
    int count = atoi(argv[1]), listener;
    struct client *clients = calloc((size_t)count, sizeof *clients);
    FILE *file = fopen(argv[2], "rb");
    char line[64];
    epoll = epoll_create1(0);
    frame = malloc(1 << 24);
    if (!clients || !file || !frame || epoll < 0)
        fail(argv[2]);
    frame_size = fread(frame, 1, 1 << 24, file);
    if (!frame_size)
        fail("an empty frame");
    alarm(LIFETIME_S);
    listener = listen_on_free_port();
    accept_all(listener, clients, count);
    printf("ready\n");
    fflush(stdout);
    if (read(0, line, sizeof line) <= 0)
        return 1;
    long long before = cpu_us();
    run(clients, count, start_timer(atol(argv[3])), atol(argv[4]));
    printf("%lld\n", cpu_us() - before);
    return 0;
}
