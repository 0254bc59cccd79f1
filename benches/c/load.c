/* The load of echo.py and web.py: N connections, each sends a request, waits until all of the reply has come, and sends the next.
 *
 * usage: load (tcp | udp) PORT | unix PATH   CONNECTIONS SIZE (bytes | lines | http | websocket) SECONDS
 * bytes: SIZE bytes, which come back as they are. lines: the same, ending with the only newline. http: GET / to which
 * the reply says its Content-Length; SIZE says nothing. websocket: a handshake, then binary messages of SIZE bytes.
 * Warms up, prints "ready", waits for one line on its standard input, loads the server for SECONDS, lets what is under
 * way come back, and prints one line of JSON.
 *
 * Invariants:
 *  1. Every byte that comes back is compared with what is expected; a difference or a closed connection ends the program
 *     with code 1, so a server that answers wrongly has no figure. Of an HTTP reply the status and the length are.
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

enum { EVENTS = 256, CHUNK = 256 * 1024, WARM_UP_REQUESTS = 20, WARM_UP_NANOSECONDS = 300000000, GIVE_UP_MILLISECONDS = 20000 };
static const char GET[] = "GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\nUser-Agent: load\r\n\r\n";
static const char UPGRADE[] = "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                              "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
enum speech { BYTES, LINES, HTTP, WEBSOCKET, SPEECHES };
static const char *const SPEECH_NAMES[SPEECHES] = {"bytes", "lines", "http", "websocket"};

struct connection {
    int descriptor;
    size_t sent, received; /* of the message under way */
    int waits_for_room;    /* EPOLLOUT is asked for */
    int64_t started;
};

static struct connection *connections;
static int poller, connection_count;
static enum speech speech;
/* Of a request, and of the reply to it; an HTTP reply's is not known (0) before the first has come. */
static size_t size, reply_size;
static char *message, *reply, incoming[CHUNK];
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

/* The length of a reply whose head is all there; they all have the same. */
static size_t length_of_reply(const char *text, size_t received)
{
    const char *end = memmem(text, received, "\r\n\r\n", 4);
    for (const char *line = text; end && line < end; line = (char *)memchr(line, '\n', end + 2 - line) + 1)
        if (!strncasecmp(line, "content-length:", 15))
            return end + 4 - text + strtoull(line + 15, NULL, 10);
    return 0;
}

static int is_wrong(const struct connection *connection, size_t received)
{
    if (speech != HTTP)
        return connection->received + received > reply_size || memcmp(incoming, reply + connection->received, received);
    if (!reply_size)
        reply_size = length_of_reply(incoming, received);
    return connection->received + received > reply_size || (!connection->received && memcmp(incoming, "HTTP/1.1 200", 12));
}

static void pull(struct connection *connection)
{
    ssize_t received = recv(connection->descriptor, incoming, CHUNK, MSG_DONTWAIT);
    if (received < 0 && errno == EAGAIN)
        return;
    if (received < 0)
        fail("recv");
    if (received == 0 || is_wrong(connection, received)) {
        fprintf(stderr, received ? "the server answered something else\n" : "the server closed a connection\n");
        exit(1);
    }
    connection->received += received;
    if (connection->received == reply_size) {
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

static void become_websocket(int descriptor)
{
    size_t received = 0;
    if (send(descriptor, UPGRADE, sizeof UPGRADE - 1, MSG_NOSIGNAL) != sizeof UPGRADE - 1)
        fail("send");
    while (received < 4 || memcmp(incoming + received - 4, "\r\n\r\n", 4)) {
        ssize_t more = recv(descriptor, incoming + received, 1, 0);
        if (more <= 0 || ++received == CHUNK)
            fail("handshake");
    }
    if (memcmp(incoming, "HTTP/1.1 101", 12)) {
        fprintf(stderr, "the server refused the handshake\n");
        exit(1);
    }
}

/* A binary message in one frame. A mask of zeros leaves the payload as it is; a server's frame has none. */
static void make_frames(size_t payload)
{
    size_t head = payload < 126 ? 2 : payload < 65536 ? 4 : 10, index = 0;
    message = calloc(1, head + 4 + payload);
    reply = malloc(head + payload);
    if (!message || !reply)
        fail("malloc");
    message[index++] = (char)0x82;
    message[index++] = head == 2 ? payload : head == 4 ? 126 : 127;
    for (size_t left = head - index; left; left--)
        message[index++] = payload >> 8 * (left - 1);
    memcpy(reply, message, head);
    message[1] |= 0x80;
    for (index = 0; index < payload; index++)
        message[head + 4 + index] = reply[head + index] = (char)(index * 131 + index / 251);
    size = head + 4 + payload;
    reply_size = head + payload;
}

static void make_message(size_t length)
{
    message = reply = malloc(length);
    if (!message)
        fail("malloc");
    for (size_t index = 0; index < length; index++) {
        message[index] = (char)(index * 131 + index / 251);
        if (speech == LINES && message[index] == '\n')
            message[index] = ' ';
    }
    if (speech == LINES)
        message[length - 1] = '\n';
    size = reply_size = length;
}

int main(int count, char **arguments)
{
    while (count == 7 && speech < SPEECHES && strcmp(arguments[5], SPEECH_NAMES[speech]))
        speech++;
    if (count != 7 || speech == SPEECHES || atoi(arguments[3]) < 1 || atoi(arguments[4]) < 1 || atof(arguments[6]) <= 0) {
        fprintf(stderr, "usage: load (tcp | udp) PORT | unix PATH   CONNECTIONS SIZE (bytes | lines | http | websocket) SECONDS\n");
        return 2;
    }
    int is_tcp = !strcmp(arguments[1], "tcp"), is_udp = !strcmp(arguments[1], "udp");
    connection_count = atoi(arguments[3]);
    connections = calloc(connection_count, sizeof *connections);
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (!connections || poller < 0)
        fail("start");
    if (speech == HTTP) {
        message = (char *)GET;
        size = sizeof GET - 1;
    } else if (speech == WEBSOCKET)
        make_frames(atoi(arguments[4]));
    else
        make_message(atoi(arguments[4]));
    for (int index = 0; index < connection_count; index++) {
        connections[index].descriptor = connect_one(is_tcp, is_udp, arguments[2]);
        if (speech == WEBSOCKET)
            become_websocket(connections[index].descriptor);
        watch(&connections[index], EPOLL_CTL_ADD, 0);
    }
    load((size_t)connection_count * WARM_UP_REQUESTS, now(CLOCK_MONOTONIC) + WARM_UP_NANOSECONDS);
    printf("ready\n");
    fflush(stdout);
    if (getchar() == EOF)
        return 1;

    int64_t wall = now(CLOCK_MONOTONIC), processor = now(CLOCK_PROCESS_CPUTIME_ID);
    load(SIZE_MAX, wall + (int64_t)(atof(arguments[6]) * 1e9));
    wall = now(CLOCK_MONOTONIC) - wall;
    processor = now(CLOCK_PROCESS_CPUTIME_ID) - processor;
    qsort(latencies, finished, sizeof *latencies, ascending);
    printf("{\"requests\": %zu, \"seconds\": %.6f, \"client_cpu_seconds\": %.6f, "
           "\"p50_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f}\n",
           finished, wall / 1e9, processor / 1e9, microseconds_at(0.5), microseconds_at(0.99), microseconds_at(0.999));
    return 0;
}
