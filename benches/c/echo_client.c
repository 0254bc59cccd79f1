/* The load of echo.py: N connections, each sends a message, waits until all of it has come back, and sends the next.
 *
 * usage: echo_client tcp PORT | udp PORT | unix PATH   CONNECTIONS SIZE (seconds|requests) AMOUNT [line]
 * With "line" a message is one line: it ends with its only newline.
 * Warms up with 20 requests per connection, prints "ready", waits for one line on its standard input, loads the
 * server until AMOUNT is reached, lets what is under way come back, and prints one line of JSON.
 *
 * Invariants:
 *  1. Every byte that comes back is compared with what was sent; a difference or a closed connection ends the program
 *     with code 1, so a server that answers wrongly has no figure.
 *  2. A datagram that is lost ends the program with code 1 after a while: so few are under way that the kernel has room.
 *  3. Every request counted was sent after "go" and answered before the line of JSON.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 256, CHUNK = 256 * 1024, WARM_UP_REQUESTS = 20, GIVE_UP_MILLISECONDS = 20000 };

struct connection {
    int descriptor;
    size_t sent, received; /* of the message under way */
    int waits_for_room;    /* EPOLLOUT is asked for */
    int64_t started;
};

static struct connection *connections;
static int poller, connection_count;
static size_t size;
static char *message, incoming[CHUNK];
static int64_t *latencies;
static size_t finished, room;
/* A request is started while `finished + under_way < most` and the clock is before `deadline`. */
static size_t most, under_way;
static int64_t deadline;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static int64_t now(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void watch(struct connection *connection, int operation, int for_room)
{
    struct epoll_event event = {.events = EPOLLIN | (for_room ? EPOLLOUT : 0), .data.ptr = connection};
    connection->waits_for_room = for_room;
    if (epoll_ctl(poller, operation, connection->descriptor, &event))
        fail("epoll_ctl");
}

static void push(struct connection *connection)
{
    while (connection->sent < size) {
        ssize_t sent = send(connection->descriptor, message + connection->sent, size - connection->sent,
                            MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno != EAGAIN)
            fail("send");
        if (sent < 0) {
            if (!connection->waits_for_room)
                watch(connection, EPOLL_CTL_MOD, 1);
            return;
        }
        connection->sent += sent;
    }
    if (connection->waits_for_room)
        watch(connection, EPOLL_CTL_MOD, 0);
}

static void start_request(struct connection *connection)
{
    int64_t time = now(CLOCK_MONOTONIC);
    if (finished + under_way >= most || time >= deadline)
        return;
    under_way++;
    connection->sent = connection->received = 0;
    connection->started = time;
    push(connection);
}

static void record(int64_t latency)
{
    if (finished == room) {
        room = room ? room * 2 : 1 << 16;
        latencies = realloc(latencies, room * sizeof *latencies);
        if (!latencies)
            fail("realloc");
    }
    latencies[finished++] = latency;
}

static void pull(struct connection *connection)
{
    ssize_t received = recv(connection->descriptor, incoming, CHUNK, MSG_DONTWAIT);
    if (received < 0 && errno == EAGAIN)
        return;
    if (received < 0)
        fail("recv");
    if (received == 0 || connection->received + received > connection->sent ||
        memcmp(incoming, message + connection->received, received)) {
        fprintf(stderr, received ? "the server sent other bytes than it was sent\n" : "the server closed a connection\n");
        exit(1);
    }
    connection->received += received;
    if (connection->received == size) {
        under_way--;
        record(now(CLOCK_MONOTONIC) - connection->started);
        start_request(connection);
    }
}

static void load(size_t requests, int64_t until)
{
    finished = under_way = 0;
    most = requests;
    deadline = until;
    for (int index = 0; index < connection_count; index++)
        start_request(&connections[index]);
    while (under_way) {
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(poller, events, EVENTS, GIVE_UP_MILLISECONDS);
        if (ready == 0) {
            fprintf(stderr, "no answer for %d ms, %zu requests under way\n", GIVE_UP_MILLISECONDS, under_way);
            exit(1);
        }
        if (ready < 0 && errno != EINTR)
            fail("epoll_wait");
        for (int index = 0; index < ready; index++) {
            struct connection *connection = events[index].data.ptr;
            if (events[index].events & EPOLLOUT)
                push(connection);
            if (events[index].events & ~EPOLLOUT)
                pull(connection);
        }
    }
}

static int connect_one(int is_tcp, int is_udp, const char *target)
{
    struct sockaddr_in tcp = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    int is_internet = is_tcp || is_udp;
    tcp.sin_port = htons(is_internet ? atoi(target) : 0);
    strncpy(local.sun_path, is_internet ? "" : target, sizeof local.sun_path - 1);
    int descriptor = socket(is_internet ? AF_INET : AF_UNIX, (is_udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0), on = 1;
    if (descriptor < 0)
        fail("socket");
    if (is_internet ? connect(descriptor, (struct sockaddr *)&tcp, sizeof tcp)
               : connect(descriptor, (struct sockaddr *)&local, sizeof local))
        fail("connect");
    if (is_tcp && setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on))
        fail("TCP_NODELAY");
    return descriptor;
}

static int ascending(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

static double microseconds_at(double share)
{
    return latencies[(size_t)(share * (finished - 1))] / 1000.0;
}

int main(int count, char **arguments)
{
    if (count < 7 || count > 8 || (strcmp(arguments[5], "seconds") && strcmp(arguments[5], "requests"))) {
        fprintf(stderr,
                "usage: echo_client tcp PORT | udp PORT | unix PATH   CONNECTIONS SIZE (seconds|requests) AMOUNT [line]\n");
        return 2;
    }
    int is_tcp = !strcmp(arguments[1], "tcp"), is_udp = !strcmp(arguments[1], "udp"), by_time = !strcmp(arguments[5], "seconds");
    connection_count = atoi(arguments[3]);
    size = strtoull(arguments[4], NULL, 10);
    double amount = strtod(arguments[6], NULL);
    if (connection_count < 1 || size < 1 || amount <= 0) {
        fprintf(stderr, "CONNECTIONS, SIZE and AMOUNT must be positive\n");
        return 2;
    }
    message = malloc(size);
    connections = calloc(connection_count, sizeof *connections);
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (!message || !connections || poller < 0)
        fail("start");
    for (size_t index = 0; index < size; index++)
        message[index] = (char)(index * 131 + index / 251);
    if (count == 8) {
        for (size_t index = 0; index < size; index++)
            if (message[index] == '\n')
                message[index] = ' ';
        message[size - 1] = '\n';
    }
    for (int index = 0; index < connection_count; index++) {
        connections[index].descriptor = connect_one(is_tcp, is_udp, arguments[2]);
        watch(&connections[index], EPOLL_CTL_ADD, 0);
    }
    load((size_t)connection_count * WARM_UP_REQUESTS, INT64_MAX);
    printf("ready\n");
    fflush(stdout);
    if (getchar() == EOF)
        return 1;

    int64_t wall = now(CLOCK_MONOTONIC), processor = now(CLOCK_PROCESS_CPUTIME_ID);
    load(by_time ? SIZE_MAX : (size_t)amount, by_time ? wall + (int64_t)(amount * 1e9) : INT64_MAX);
    wall = now(CLOCK_MONOTONIC) - wall;
    processor = now(CLOCK_PROCESS_CPUTIME_ID) - processor;
    qsort(latencies, finished, sizeof *latencies, ascending);
    printf("{\"requests\": %zu, \"seconds\": %.6f, \"client_cpu_seconds\": %.6f, "
           "\"p50_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f}\n",
           finished, wall / 1e9, processor / 1e9, microseconds_at(0.5), microseconds_at(0.99), microseconds_at(0.999));
    return 0;
}
