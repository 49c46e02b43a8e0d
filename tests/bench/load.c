/* A closed-loop load generator for uwsgi routers: N clients, each request on a connection of its own.
 *
 * A client connects, sends one uwsgi packet (and a body), reads to EOF, and compares every byte with the
 * reply it expects; then it starts again. Anything else than the whole right reply is an error. One line of
 * JSON at the end.
 *
 * Ephemeral ports do not run out as long as the server closes first: TIME_WAIT then stays on the server's
 * port, and Linux lets a newer SYN from the same client port take such a connection over. Of this side's
 * ports only the connections in flight are taken. So we close in the plain way, as nginx does, and not with a
 * reset.
 */
#define _GNU_SOURCE
#include <getopt.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "wire.h"

enum {
    PACKET = 834,            /* bytes of header and vars: a browser's request through nginx's uwsgi_params */
    MOST_CLIENTS = 4096,
    COUNTED_US = 1 << 20,    /* latencies are counted by the microsecond up to here, about a second */
    RETRY_MS = 1,            /* a unix socket with a full backlog gives nothing to wait for: try again */
    PATIENCE_MS = 10000,     /* without any event for so long, what is in flight has failed */
};

struct client {
    int fd;  /* -1: between two requests */
    size_t sent, got;
    uint64_t started;
};

static struct {
    struct address to;
    size_t clients, body, reply;
    double requests, seconds;
    const char *key;
} option = {.clients = 64, .reply = 176, .key = "foo.com"};

static int epoll;
static char *request, *reply;
static size_t request_length;
static uint64_t deadline, asked, good, failed, slowest_us, latencies[COUNTED_US];
static size_t in_flight;
static char first_error[128];

/* The vars in nginx's order; the cookie, last, is what makes the packet PACKET bytes for any key and body. */
static void build_request(void) {
    char length[24] = "", cookie[PACKET];
    if (option.body)
        snprintf(length, sizeof length, "%zu", option.body);
    const char *vars[][2] = {
        {"QUERY_STRING", "page=2"},
        {"REQUEST_METHOD", option.body ? "POST" : "GET"},
        {"CONTENT_TYPE", option.body ? "text/plain" : ""},
        {"CONTENT_LENGTH", length},
        {"REQUEST_URI", "/articles/?page=2"},
        {"PATH_INFO", "/articles/"},
        {"DOCUMENT_ROOT", "/usr/share/nginx/html"},
        {"SERVER_PROTOCOL", "HTTP/1.1"},
        {"REQUEST_SCHEME", "http"},
        {"REMOTE_ADDR", "192.0.2.17"},
        {"REMOTE_PORT", "50412"},
        {"SERVER_PORT", "80"},
        {"SERVER_NAME", option.key},
        {"HTTP_HOST", option.key},
        {"HTTP_CONNECTION", "keep-alive"},
        {"HTTP_USER_AGENT", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"},
        {"HTTP_ACCEPT", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"},
        {"HTTP_ACCEPT_LANGUAGE", "en-GB,en;q=0.5"},
        {"HTTP_ACCEPT_ENCODING", "gzip, deflate"},
        {"HTTP_UPGRADE_INSECURE_REQUESTS", "1"},
    };
    request = malloc(PACKET + 2 * 256 + option.body);
    if (!request)
        die("no memory for a body of %zu bytes", option.body);
    char *at = request + 4;
    for (size_t i = 0; i < sizeof vars / sizeof *vars; i++)
        at = append_var(at, vars[i][0], vars[i][1], strlen(vars[i][1]));
    ptrdiff_t room = request + PACKET - at - 4 - (ptrdiff_t)strlen("HTTP_COOKIE");
    if (room < 0)
        die("the key %s leaves %td bytes for the cookie in a packet of %d", option.key, room, PACKET);
    fill(cookie, (size_t)room);
    at = append_var(at, "HTTP_COOKIE", cookie, (size_t)room);
    request[0] = request[3] = 0;
    request[1] = (char)(PACKET - 4), request[2] = (char)((PACKET - 4) >> 8);
    fill(at, option.body);
    request_length = PACKET + option.body;
}

static void finish(struct client *c, const char *error) {
    if (error) {
        if (!failed++)
            snprintf(first_error, sizeof first_error, "%s after %zu of %zu bytes", error, c->got,
                     option.reply);
    } else {
        uint64_t us = (now_ns() - c->started) / 1000;
        latencies[us < COUNTED_US ? us : COUNTED_US - 1]++;
        slowest_us = us > slowest_us ? us : slowest_us;
        good++;
    }
    close(c->fd);
    c->fd = -1;
    in_flight--;
}

/* Sends and reads until the kernel has no more for us: one call an edge. */
static void proceed(struct client *c) {
    static char piece[CHUNK];
    while (c->sent < request_length) {
        ssize_t n = send(c->fd, request + c->sent, request_length - c->sent, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN)
            return finish(c, strerror(errno));
        if (n < 0)
            break;
        c->sent += (size_t)n;
    }
    for (;;) {
        ssize_t n = recv(c->fd, piece, sizeof piece, 0);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0)
            return finish(c, strerror(errno));
        if (n == 0)
            return finish(c, c->got < option.reply ? "reply ends" : NULL);
        if ((size_t)n > option.reply - c->got)
            return finish(c, "reply goes on");
        if (memcmp(piece, reply + c->got, (size_t)n))
            return finish(c, "wrong bytes in the reply");
        c->got += (size_t)n;
    }
}

/* One connection and as much of the request as goes at once. False: the backlog is full, try again later. */
static int begin(struct client *c) {
    uint64_t started = now_ns();
    int fd = socket(option.to.raw.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die("socket: %s", strerror(errno));
    int refused = connect(fd, (struct sockaddr *)&option.to.raw, option.to.length) && errno != EINPROGRESS;
    if (refused && errno == EAGAIN)
        return close(fd), 0;
    *c = (struct client){.fd = fd, .started = started};
    asked++, in_flight++;
    if (refused)
        return finish(c, strerror(errno)), 1;
    struct epoll_event watch = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &watch))
        die("epoll_ctl: %s", strerror(errno));
    ssize_t n = send(fd, request, request_length, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN)
        return finish(c, strerror(errno)), 1;
    c->sent = n > 0 ? (size_t)n : 0;
    return 1;
}

static int wants_more(void) {
    return option.requests ? asked < option.requests : now_ns() < deadline;
}

/* Nothing has moved for PATIENCE_MS: what is in flight, or could not even connect, has failed. */
static void give_up(struct client *clients) {
    for (size_t i = 0; i < option.clients; i++) {
        if (clients[i].fd >= 0)
            finish(&clients[i], "no event for 10 s");
        else if (wants_more() && !failed++)
            snprintf(first_error, sizeof first_error, "backlog full for 10 s");
    }
}

/* Ends early when as many requests have failed as there are clients: such a router is not worth measuring. */
static void run(struct client *clients) {
    struct epoll_event events[EVENTS];
    uint64_t moved = now_ns();
    while ((in_flight || wants_more()) && failed < option.clients) {
        int postponed = 0;
        for (size_t i = 0; i < option.clients; i++)
            if (clients[i].fd < 0 && wants_more() && !begin(&clients[i]))
                postponed = 1;
        int n = epoll_wait(epoll, events, EVENTS, postponed ? RETRY_MS : in_flight ? PATIENCE_MS : 0);
        for (int i = 0; i < n; i++)
            proceed(events[i].data.ptr);
        if (n > 0)
            moved = now_ns();
        else if (now_ns() - moved >= PATIENCE_MS * 1000000ull)
            return give_up(clients);
    }
}

static uint64_t percentile_us(double share) {
    uint64_t seen = 0;
    for (uint64_t us = 0; us < COUNTED_US; us++)
        if ((seen += latencies[us]) && seen >= share * (double)good)
            return us;
    return 0;
}

static void parse_options(int argc, char **argv) {
    static const struct option known[] = {
        {"connect", required_argument, 0, 'a'}, {"clients", required_argument, 0, 'c'},
        {"requests", required_argument, 0, 'n'}, {"seconds", required_argument, 0, 's'},
        {"body", required_argument, 0, 'b'}, {"reply", required_argument, 0, 'r'},
        {"key", required_argument, 0, 'k'}, {0, 0, 0, 0},
    };
    for (int c; (c = getopt_long(argc, argv, "", known, NULL)) != -1;)
        switch (c) {
        case 'a': option.to = parse_address(optarg); break;
        case 'c': option.clients = (size_t)number("--clients", optarg, 1, MOST_CLIENTS); break;
        case 'n': option.requests = number("--requests", optarg, 1, 1e12); break;
        case 's': option.seconds = number("--seconds", optarg, 0.001, 3600); break;
        case 'b': option.body = (size_t)number("--body", optarg, 0, 1 << 30); break;
        case 'r': option.reply = (size_t)number("--reply", optarg, SMALLEST_REPLY, 1 << 30); break;
        case 'k': option.key = optarg; break;
        default: exit(2);
        }
    if (!option.to.length || !option.requests == !option.seconds || optind < argc)
        die("usage: load --connect ADDRESS (--requests N | --seconds S) [--clients N] [--body BYTES] "
            "[--reply BYTES] [--key KEY]");
    if (strlen(option.key) > LARGEST_KEY)
        die("--key has %zu bytes, but a key may have %d", strlen(option.key), LARGEST_KEY);
}

int main(int argc, char **argv) {
    parse_options(argc, argv);
    build_request();
    reply = build_reply(option.reply);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    struct client *clients = calloc(option.clients, sizeof *clients);
    if (epoll < 0 || !clients)
        die("cannot start: %s", strerror(errno));
    for (size_t i = 0; i < option.clients; i++)
        clients[i].fd = -1;
    uint64_t start = now_ns();
    deadline = start + (uint64_t)(option.seconds * 1e9);
    run(clients);
    printf("{\"requests\": %ju, \"errors\": %ju, \"seconds\": %.6f, \"p50_us\": %ju, \"p99_us\": %ju, "
           "\"slowest_us\": %ju, \"first_error\": \"%s\"}\n", good, failed, (double)(now_ns() - start) / 1e9,
           percentile_us(0.5), percentile_us(0.99), slowest_us, first_error);
    return failed ? 1 : 0;
}
