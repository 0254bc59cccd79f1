/* The limit for tls.py, and its load: an echo server over TLS that does nothing but what OpenSSL and epoll need.
 *
 * usage: tls_echo server FILE      serves with the certificate and key of FILE, prints "listening PORT"
 *        tls_echo client PORT CONNECTIONS SIZE SECONDS
 *                                  prints "connected", waits for a line, loads, prints one line of JSON
 *
 * Invariants:
 *  1. The server reads ahead and asks the socket again only when epoll says so: one recv and one send a message.
 *  2. Each connection has one message on its way, so that the buffers of a socket always have room for an answer.
 *  3. The client compares the length and the bytes of every answer.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER = 256 * 1024, EVENTS = 256, BACKLOG = 4096 };

struct connection {
    SSL *ssl;
    size_t received;
};

static char buffer[BUFFER], message[BUFFER];

static void fail(const char *what)
{
    perror(what);
    ERR_print_errors_fp(stderr);
    exit(1);
}

static double seconds_of(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

static struct connection *adopt(SSL_CTX *context, int descriptor, int poller)
{
    int on = 1;
    struct connection *connection = calloc(1, sizeof *connection);
    if (!connection || setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on))
        fail("connection");
    connection->ssl = SSL_new(context);
    if (!connection->ssl || !SSL_set_fd(connection->ssl, descriptor))
        fail("SSL_new");
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, descriptor, &event))
        fail("epoll_ctl");
    return connection;
}

static void drop(struct connection *connection)
{
    close(SSL_get_fd(connection->ssl));
    SSL_free(connection->ssl);
    free(connection);
}

/* Reads what has arrived and sends it back; SSL_read does the handshake as well. */
static void echo(struct connection *connection)
{
    do {
        ERR_clear_error();
        int count = SSL_read(connection->ssl, buffer, BUFFER);
        if (count <= 0) {
            if (SSL_get_error(connection->ssl, count) != SSL_ERROR_WANT_READ)
                drop(connection);
            return;
        }
        if (SSL_write(connection->ssl, buffer, count) != count)
            fail("SSL_write");
    } while (SSL_has_pending(connection->ssl));
}

static void serve(const char *file)
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    if (!context || SSL_CTX_use_certificate_chain_file(context, file) != 1
        || SSL_CTX_use_PrivateKey_file(context, file, SSL_FILETYPE_PEM) != 1)
        fail("certificate");
    SSL_CTX_set_read_ahead(context, 1);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, length) || listen(listener, BACKLOG)
        || getsockname(listener, (struct sockaddr *)&address, &length))
        fail("listen");
    int poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (poller < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event))
        fail("epoll");
    printf("listening %d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(poller, events, EVENTS, -1), descriptor;
        for (int index = 0; index < ready; index++) {
            if (events[index].data.ptr)
                echo(events[index].data.ptr);
            else
                while ((descriptor = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0)
                    SSL_set_accept_state(adopt(context, descriptor, poller)->ssl);
        }
    }
}

static void ask(struct connection *connection, int size)
{
    connection->received = 0;
    if (SSL_write(connection->ssl, message, size) != size)
        fail("SSL_write");
}

/* Reads what has arrived; returns how many answers that completes, and asks again after each. */
static long hear(struct connection *connection, int size)
{
    long answers = 0;
    do {
        int count = SSL_read(connection->ssl, buffer, BUFFER);
        if (count <= 0) {
            if (SSL_get_error(connection->ssl, count) != SSL_ERROR_WANT_READ)
                fail("SSL_read");
            return answers;
        }
        if (connection->received + count > (size_t)size || memcmp(buffer, message + connection->received, count))
            fail("answer");
        connection->received += count;
        if (connection->received == (size_t)size) {
            answers++;
            ask(connection, size);
        }
    } while (SSL_has_pending(connection->ssl));
    return answers;
}

static void load(int port, int connections, int size, double duration)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    int poller = epoll_create1(EPOLL_CLOEXEC);
    struct connection **all = calloc(connections, sizeof *all);
    if (!context || poller < 0 || !all)
        fail("client");
    SSL_CTX_set_read_ahead(context, 1);
    for (int index = 0; index < size; index++)
        message[index] = index * 31 + index / 256;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port)};
    for (int index = 0; index < connections; index++) {
        int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (descriptor < 0 || connect(descriptor, (struct sockaddr *)&address, sizeof address))
            fail("connect");
        all[index] = adopt(context, descriptor, poller);
        if (SSL_connect(all[index]->ssl) != 1)
            fail("SSL_connect");
        int on = 1;
        if (ioctl(descriptor, FIONBIO, &on))
            fail("FIONBIO");
    }
    printf("connected\n");
    fflush(stdout);
    if (getchar() == EOF)
        exit(1);
    for (int index = 0; index < connections; index++)
        ask(all[index], size);
    double began = seconds_of(CLOCK_MONOTONIC), cpu = seconds_of(CLOCK_PROCESS_CPUTIME_ID), ended;
    long requests = 0;
    while ((ended = seconds_of(CLOCK_MONOTONIC)) - began < duration) {
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(poller, events, EVENTS, 1000);
        for (int index = 0; index < ready; index++)
            requests += hear(events[index].data.ptr, size);
    }
    printf("{\"requests\": %ld, \"seconds\": %f, \"client_cpu_seconds\": %f}\n", requests, ended - began,
           seconds_of(CLOCK_PROCESS_CPUTIME_ID) - cpu);
    fflush(stdout);
}

int main(int count, char **arguments)
{
    if (count == 3 && !strcmp(arguments[1], "server"))
        serve(arguments[2]);
    else if (count == 6 && !strcmp(arguments[1], "client"))
        load(atoi(arguments[2]), atoi(arguments[3]), atoi(arguments[4]), atof(arguments[5]));
    else
        fprintf(stderr, "usage: tls_echo server FILE | client PORT CONNECTIONS SIZE SECONDS\n");
    return 2;
}
