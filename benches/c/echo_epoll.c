/* The limit for echo.py: an echo server that does nothing but the system calls that one thread and epoll need.
 *
 * usage: echo_epoll tcp | udp | http | unix PATH      prints "listening PORT" (0 for unix) and serves until it is killed
 * With http it answers each request, which comes in one piece, with the same 1 KiB: a server for measured clients.
 *
 * What it leaves out on purpose: timeouts, limits, logging. Invariants:
 *  1. One recv and one send per message that fits the socket's buffers; EPOLLOUT is asked for only after a short send.
 *  2. Datagrams: one recvfrom and one sendto each, until nothing waits; then one epoll_wait.
 *  3. While a connection has unsent bytes it is not read from, so what is pending never exceeds one buffer.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { BUFFER = 256 * 1024, EVENTS = 256, BACKLOG = 4096 };

struct connection {
    int descriptor;
    char *pending; /* NULL unless a send was short */
    size_t pending_start, pending_end;
};

static const char HEAD[] = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1024\r\n\r\n";
enum { BODY = 1024 };
static int poller, is_http;
static char buffer[BUFFER];

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static int listen_tcp(int *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, length) || listen(listener, BACKLOG))
        fail("listen");
    if (getsockname(listener, (struct sockaddr *)&address, &length))
        fail("getsockname");
    *port = ntohs(address.sin_port);
    return listener;
}

static int bind_udp(int *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int descriptor = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (descriptor < 0 || bind(descriptor, (struct sockaddr *)&address, length))
        fail("bind");
    if (getsockname(descriptor, (struct sockaddr *)&address, &length))
        fail("getsockname");
    *port = ntohs(address.sin_port);
    return descriptor;
}

static void echo_datagrams(int descriptor)
{
    for (;;) {
        struct sockaddr_in sender;
        socklen_t length = sizeof sender;
        ssize_t received = recvfrom(descriptor, buffer, BUFFER, 0, (struct sockaddr *)&sender, &length);
        if (received < 0 && errno == EAGAIN)
            return;
        if (received < 0)
            fail("recvfrom");
        if (sendto(descriptor, buffer, received, MSG_NOSIGNAL, (struct sockaddr *)&sender, length) < 0)
            fail("sendto");
    }
}

static int listen_unix(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) {
        fprintf(stderr, "path too long for a Unix socket: %s\n", path);
        exit(1);
    }
    strcpy(address.sun_path, path);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, BACKLOG))
        fail("listen");
    return listener;
}

static void watch(int operation, struct connection *connection, unsigned events)
{
    struct epoll_event event = {.events = events, .data.ptr = connection};
    if (epoll_ctl(poller, operation, connection->descriptor, &event))
        fail("epoll_ctl");
}

static void drop(struct connection *connection)
{
    close(connection->descriptor);
    free(connection->pending);
    free(connection);
}

static void accept_all(int listener, int is_tcp)
{
    for (;;) {
        int descriptor = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (descriptor < 0) {
            if (errno == EAGAIN || errno == ECONNABORTED)
                return;
            fail("accept4");
        }
        int on = 1;
        if (is_tcp && setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on))
            fail("TCP_NODELAY");
        struct connection *connection = calloc(1, sizeof *connection);
        if (!connection)
            fail("calloc");
        connection->descriptor = descriptor;
        watch(EPOLL_CTL_ADD, connection, EPOLLIN);
    }
}

static void echo(struct connection *connection)
{
    ssize_t received = recv(connection->descriptor, buffer, BUFFER, 0);
    if (received < 0 && errno == EAGAIN)
        return;
    if (received <= 0) {
        drop(connection);
        return;
    }
    if (is_http) {
        memcpy(buffer, HEAD, sizeof HEAD - 1);
        memset(buffer + sizeof HEAD - 1, 'm', BODY);
        received = sizeof HEAD - 1 + BODY;
    }
    ssize_t sent = send(connection->descriptor, buffer, received, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) {
        drop(connection);
        return;
    }
    if (sent < 0)
        sent = 0;
    if (sent == received)
        return;
    connection->pending = malloc(received - sent);
    if (!connection->pending)
        fail("malloc");
    memcpy(connection->pending, buffer + sent, received - sent);
    connection->pending_start = 0;
    connection->pending_end = received - sent;
    watch(EPOLL_CTL_MOD, connection, EPOLLOUT);
}

static void flush(struct connection *connection)
{
    ssize_t sent = send(connection->descriptor, connection->pending + connection->pending_start,
                        connection->pending_end - connection->pending_start, MSG_NOSIGNAL);
    if (sent < 0 && errno == EAGAIN)
        return;
    if (sent < 0) {
        drop(connection);
        return;
    }
    connection->pending_start += sent;
    if (connection->pending_start == connection->pending_end) {
        free(connection->pending);
        connection->pending = NULL;
        watch(EPOLL_CTL_MOD, connection, EPOLLIN);
    }
}

int main(int count, char **arguments)
{
    is_http = count == 2 && !strcmp(arguments[1], "http");
    int is_tcp = is_http || (count == 2 && !strcmp(arguments[1], "tcp")), is_udp = count == 2 && !strcmp(arguments[1], "udp"), port = 0;
    if (!is_tcp && !is_udp && !(count == 3 && !strcmp(arguments[1], "unix"))) {
        fprintf(stderr, "usage: echo_epoll tcp | udp | http | unix PATH\n");
        return 2;
    }
    int listener = is_tcp ? listen_tcp(&port) : is_udp ? bind_udp(&port) : listen_unix(arguments[2]);
    poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (poller < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event))
        fail("epoll");
    printf("listening %d\n", port);
    fflush(stdout);
    for (;;) {
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(poller, events, EVENTS, -1);
        if (ready < 0 && errno != EINTR)
            fail("epoll_wait");
        for (int index = 0; index < ready; index++) {
            struct connection *connection = events[index].data.ptr;
            if (!connection && is_udp)
                echo_datagrams(listener);
            else if (!connection)
                accept_all(listener, is_tcp);
            else if (connection->pending)
                flush(connection);
            else
                echo(connection);
        }
    }
}
