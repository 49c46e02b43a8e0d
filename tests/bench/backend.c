/* A uwsgi backend for benchmarks: reads a packet and its body, gives one fixed reply, closes.
 *
 * Listens on --nodes addresses (prints them as one line of JSON when ready) and announces each of them, under
 * one key, to any number of subscription servers at once and then every --interval seconds, until it is
 * killed. The usual request costs accept, recv, send, close and no epoll call: it is there when it is
 * accepted. A malformed packet, or a body that is not the alphabet, is closed without a reply, so that a
 * client counts it.
 *
 * This side closes first, so TIME_WAIT stays on the listening port, where it keeps nobody from connecting.
 */
#define _GNU_SOURCE
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "wire.h"

enum {
    MOST_NODES = 1024,
    MOST_SERVERS = 8,
    MOST_FDS = 1 << 16,
    HEAD_ROOM = 8192,   /* bytes of header and vars; load.c sends 834 */
    DEFER_SECONDS = 1,  /* TCP_DEFER_ACCEPT: for so long no connection is accepted before its first bytes */
    BACKLOG = 4096,     /* connections, cut to somaxconn by the kernel */
};

enum kind { LISTENER, SESSION, TIMER };  /* the upper half of an event's data; the lower is the descriptor */
enum progress { WAITING, READY, BROKEN };

/* One connection: its head is collected, its body is checked and let go. Kept by descriptor, used again. */
struct session {
    size_t got, head, body, sent;  /* bytes: received, of header and vars (0: unknown), of body, replied */
    int watched;
    char start[HEAD_ROOM];
};

static struct {
    const char *listen, *key;
    struct address servers[MOST_SERVERS];
    size_t nodes, reply, server_count;
    double interval;
} option = {.key = "foo.com", .nodes = 1, .reply = 176, .interval = 1};

static int epoll;
static char *reply;
static char names[MOST_NODES][sizeof(struct sockaddr_un)];
static struct session *sessions[MOST_FDS];

static size_t u16(const char *at) {
    return (unsigned char)at[0] | (size_t)(unsigned char)at[1] << 8;
}

static void watch(int fd, enum kind kind, uint32_t events) {
    struct epoll_event event = {.events = events, .data.u64 = (uint64_t)kind << 32 | (uint32_t)fd};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event))
        die("epoll_ctl: %s", strerror(errno));
}

/* The value of CONTENT_LENGTH (0 where absent or empty), or -1 where a length runs past the vars' end. */
static long long content_length(const char *at, const char *end) {
    static const char name[] = "CONTENT_LENGTH";
    long long length = 0;
    while (at < end) {
        const char *key = at + 2, *value = NULL;
        size_t key_length, value_length = 0;
        if (end - at < 2 || (key_length = u16(at), end - key < (ptrdiff_t)key_length + 2))
            return -1;
        value = key + key_length + 2, value_length = u16(value - 2);
        if (end - value < (ptrdiff_t)value_length)
            return -1;
        if (key_length == sizeof name - 1 && !memcmp(key, name, key_length))
            for (size_t i = 0; i < value_length && i < 12; i++)
                length = length * 10 + (value[i] - '0');
        at = value + value_length;
    }
    return length;
}

static int is_filler(const char *piece, size_t length, size_t offset) {
    return !memcmp(piece, filler() + offset % ALPHABET, length);
}

static enum progress receive_head(int fd, struct session *s) {
    while (!s->head || s->got < s->head) {
        ssize_t n = recv(fd, s->start + s->got, HEAD_ROOM - s->got, 0);
        if (n <= 0)
            return n < 0 && errno == EAGAIN ? WAITING : BROKEN;
        s->got += (size_t)n;
        if (s->got >= 4)
            s->head = 4 + u16(s->start + 1);
        if (s->head > HEAD_ROOM)
            return BROKEN;
    }
    long long length = content_length(s->start + 4, s->start + s->head);
    size_t early = s->got - s->head;
    if (length < (long long)early || !is_filler(s->start + s->head, early, 0))
        return BROKEN;
    s->body = (size_t)length;
    return READY;
}

static enum progress receive_body(int fd, struct session *s) {
    static char piece[CHUNK];
    size_t end = s->head + s->body;
    while (s->got < end) {
        ssize_t n = recv(fd, piece, end - s->got < CHUNK ? end - s->got : CHUNK, 0);
        if (n <= 0)
            return n < 0 && errno == EAGAIN ? WAITING : BROKEN;
        if (!is_filler(piece, (size_t)n, s->got - s->head))
            return BROKEN;
        s->got += (size_t)n;
    }
    return READY;
}

static enum progress answer(int fd, struct session *s) {
    while (s->sent < option.reply) {
        ssize_t n = send(fd, reply + s->sent, option.reply - s->sent, MSG_NOSIGNAL);
        if (n < 0)
            return errno == EAGAIN ? WAITING : BROKEN;
        s->sent += (size_t)n;
    }
    return READY;
}

/* As far as it goes without waiting; a session that must wait is watched from then on. */
static void proceed(int fd) {
    struct session *s = sessions[fd];
    enum progress progress = READY;
    if (!s->head || s->got < s->head)
        progress = receive_head(fd, s);
    if (progress == READY)
        progress = receive_body(fd, s);
    if (progress == READY)
        progress = answer(fd, s);
    if (progress != WAITING)
        close(fd);
    else if (!s->watched)
        s->watched = 1, watch(fd, SESSION, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
}

/* A bounded batch: with several nodes, a busy one must not keep the others waiting. */
static void accept_some(int listener) {
    for (int i = 0; i < EVENTS; i++) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && (errno == EAGAIN || errno == ECONNABORTED))
            return;
        if (fd < 0 || fd >= MOST_FDS)
            die("accept: %s", fd < 0 ? strerror(errno) : "too many connections");
        if (!sessions[fd] && !(sessions[fd] = malloc(sizeof **sessions)))
            die("no memory for connection %d", fd);
        memset(sessions[fd], 0, offsetof(struct session, start));
        proceed(fd);
    }
}

/* Node i: a TCP port counts up from the given one (0 stays 0), a unix path gets ".i" from the second on. */
static void listen_as(size_t i) {
    struct address a = parse_address(option.listen);
    struct sockaddr_in *in = (struct sockaddr_in *)&a.raw;
    struct sockaddr_un *un = (struct sockaddr_un *)&a.raw;
    size_t used = a.raw.ss_family == AF_UNIX ? strlen(un->sun_path) : 0;
    if (used && i)
        snprintf(un->sun_path + used, sizeof un->sun_path - used, ".%zu", i);
    if (!used && in->sin_port)
        in->sin_port = htons((uint16_t)(ntohs(in->sin_port) + i));
    int on = 1, seconds = DEFER_SECONDS;
    int fd = socket(a.raw.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (!used)
        setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &seconds, sizeof seconds);
    if (bind(fd, (struct sockaddr *)&a.raw, a.length) || listen(fd, BACKLOG))
        die("cannot listen on %s (node %zu): %s", option.listen, i, strerror(errno));
    getsockname(fd, (struct sockaddr *)&a.raw, &a.length);
    if (used) {
        strcpy(names[i], un->sun_path);
    } else {
        inet_ntop(AF_INET, &in->sin_addr, names[i], INET_ADDRSTRLEN);
        sprintf(names[i] + strlen(names[i]), ":%u", ntohs(in->sin_port));
    }
    watch(fd, LISTENER, EPOLLIN);
}

static void announce(int udp) {
    for (size_t i = 0; i < option.nodes; i++) {
        char packet[PACKET_ROOM];
        size_t length = build_announcement(packet, option.key, names[i]);
        for (size_t k = 0; k < option.server_count; k++)  /* one that is not up yet hears the next round */
            sendto(udp, packet, length, 0, (struct sockaddr *)&option.servers[k].raw,
                   option.servers[k].length);
    }
}

static int start_timer(void) {
    long long ns = (long long)(option.interval * 1e9);
    struct timespec every = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
    struct itimerspec spec = {.it_interval = every, .it_value = {.tv_nsec = 1}};
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (timer < 0 || timerfd_settime(timer, 0, &spec, NULL))
        die("timer: %s", strerror(errno));
    watch(timer, TIMER, EPOLLIN);
    return timer;
}

static void parse_options(int argc, char **argv) {
    static const struct option known[] = {
        {"listen", required_argument, 0, 'l'}, {"nodes", required_argument, 0, 'n'},
        {"reply", required_argument, 0, 'r'}, {"key", required_argument, 0, 'k'},
        {"announce", required_argument, 0, 'a'}, {"interval", required_argument, 0, 'i'}, {0, 0, 0, 0},
    };
    for (int c; (c = getopt_long(argc, argv, "", known, NULL)) != -1;)
        switch (c) {
        case 'l': option.listen = optarg; break;
        case 'n': option.nodes = (size_t)number("--nodes", optarg, 1, MOST_NODES); break;
        case 'r': option.reply = (size_t)number("--reply", optarg, SMALLEST_REPLY, 1 << 30); break;
        case 'k': option.key = optarg; break;
        case 'i': option.interval = number("--interval", optarg, 0.01, 3600); break;
        case 'a':
            if (option.server_count == MOST_SERVERS)
                die("--announce stands more than %d times", MOST_SERVERS);
            option.servers[option.server_count++] = parse_address(optarg);
            break;
        default: exit(2);
        }
    if (!option.listen || optind < argc)
        die("usage: backend --listen ADDRESS [--nodes N] [--reply BYTES] [--key KEY] "
            "[--announce IPV4:PORT]... [--interval SECONDS]");
    if (strlen(option.key) > LARGEST_KEY)
        die("--key has %zu bytes, but a key may have %d", strlen(option.key), LARGEST_KEY);
}

int main(int argc, char **argv) {
    parse_options(argc, argv);
    reply = build_reply(option.reply);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    for (size_t i = 0; i < option.nodes; i++) {
        listen_as(i);
        printf("%s\"%s\"%s", i ? ", " : "{\"nodes\": [", names[i], i + 1 < option.nodes ? "" : "]}\n");
    }
    fflush(stdout);
    int udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), timer = start_timer();
    struct epoll_event events[EVENTS];
    for (;;) {
        int n = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            int fd = (int)(uint32_t)events[i].data.u64;
            uint64_t ticks;
            switch ((enum kind)(events[i].data.u64 >> 32)) {
            case LISTENER: accept_some(fd); break;
            case SESSION: proceed(fd); break;
            case TIMER: if (read(timer, &ticks, sizeof ticks) > 0) announce(udp); break;
            }
        }
    }
}
