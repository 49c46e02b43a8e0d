/* Floods a subscription server with announcements, for a given time at a given rate, to see a router bear it.
 *
 * Each announcement is well formed and for a node of its own, so that a router without limits keeps them all.
 * With --keys K they go round K keys; without it each has a key of its own, too. They come from --hosts
 * loopback addresses, counted up from --from, with --ports sockets each. What is said is known beforehand:
 * announcement number N is for KEY-N.example (ten digits, N modulo K), and N counts up from --first.
 *
 * The i-th is due i/RATE seconds after the start. The program sleeps for a tick and sends what has come due
 * meanwhile, so it takes no more of a CPU than its datagrams cost; one that was kept from running catches up.
 * It sends to 127.0.0.0/8 alone and ends by itself. One line of JSON at the end.
 */
#define _GNU_SOURCE
#include <getopt.h>
#include <netinet/in.h>
#include <unistd.h>

#include "wire.h"

enum {
    TICK_NS = 500000,       /* 50 announcements a tick at the 100,000/s that routers are held to */
    BATCH = 256,            /* announcements a system call, from one socket */
    LATE_NS = 50000000,     /* for what is due at the end, where something else had the CPU */
    MOST_SOCKETS = 1000,
    MOST_HOSTS = 200,       /* 127.0.0.20 and on, within one byte */
    MOST_SECONDS = 60,
    MOST_RATE = 1000000,
    DIGITS = 10,            /* of a number in a key */
    HOSTS = 1000000,        /* node addresses with one port: three numbers of two digits */
    NODE_PORT = 10000,      /* the first port of the nodes; five digits */
};

/* One of the packets of a batch. They differ in digits alone, which are written over where they stand. */
struct announcement {
    char packet[PACKET_ROOM];
    char *key_digits, *address;
};

static struct {
    struct address to;
    struct in_addr from;
    double rate, seconds;
    uint64_t keys, first;
    size_t hosts, ports;
    const char *key;
} option = {.hosts = 1, .ports = 1, .key = "flood"};

static struct announcement announcements[BATCH];
static struct mmsghdr messages[BATCH];
static struct iovec pieces[BATCH];
static int sockets[MOST_SOCKETS];
static uint64_t sent, failed;

static void write_digits(char *at, uint64_t value, int digits) {
    while (digits--)
        at[digits] = (char)('0' + value % 10), value /= 10;
}

static void prepare(void) {
    char key[LARGEST_KEY + 1];
    static const char address[] = "10.100.100.100:10000";
    size_t prefix = strlen(option.key);
    snprintf(key, sizeof key, "%s-%0*d.example", option.key, DIGITS, 0);
    for (size_t i = 0; i < BATCH; i++) {
        struct announcement *a = &announcements[i];
        size_t length = build_announcement(a->packet, key, address);
        a->key_digits = (char *)memmem(a->packet, length, key, strlen(key)) + prefix + 1;
        a->address = memmem(a->packet, length, address, sizeof address - 1);
        pieces[i] = (struct iovec){.iov_base = a->packet, .iov_len = length};
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &pieces[i], .msg_iovlen = 1};
    }
}

/* The announcement of this number: its key, and its node 10.1aa.1bb.1cc:PORT. */
static void number_as(struct announcement *a, uint64_t n) {
    write_digits(a->key_digits, option.keys ? n % option.keys : n, DIGITS);
    write_digits(a->address + 4, n / 10000 % 100, 2);
    write_digits(a->address + 8, n / 100 % 100, 2);
    write_digits(a->address + 12, n % 100, 2);
    write_digits(a->address + 15, NODE_PORT + n / HOSTS % (65536 - NODE_PORT), 5);
}

/* What fails is counted and not sent again. A connected socket also tells that nobody listens there. */
static void send_batch(int fd, unsigned count) {
    for (unsigned i = 0; i < count; i++)
        number_as(&announcements[i], option.first + sent + failed + i);
    for (unsigned done = 0; done < count;) {
        int n = sendmmsg(fd, messages + done, count - done, 0);
        if (n > 0)
            done += (unsigned)n, sent += (unsigned)n;
        else
            done++, failed++;
    }
}

/* Sleeps for a tick, or until the next is due where that is later. */
static void sleep_until_due(uint64_t start) {
    uint64_t wake = now_ns() + TICK_NS, due = start + (uint64_t)((double)(sent + failed) / option.rate * 1e9);
    wake = due > wake ? due : wake;
    struct timespec until = {.tv_sec = wake / 1000000000, .tv_nsec = wake % 1000000000};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
}

static void run(uint64_t start) {
    uint64_t all = (uint64_t)(option.rate * option.seconds);
    uint64_t end = start + (uint64_t)(option.seconds * 1e9) + LATE_NS;
    size_t turn = 0, socket_count = option.hosts * option.ports;
    for (uint64_t now; sent + failed < all && (now = now_ns()) < end; sleep_until_due(start)) {
        uint64_t due = (uint64_t)((double)(now - start) / 1e9 * option.rate) + 1;
        due = due < all ? due : all;
        while (sent + failed < due && now_ns() < end) {
            uint64_t left = due - sent - failed;
            send_batch(sockets[turn++ % socket_count], left < BATCH ? (unsigned)left : BATCH);
        }
    }
}

static struct address parse_target(const char *text) {
    struct address a = parse_address(text);
    const struct sockaddr_in *in = (const struct sockaddr_in *)&a.raw;
    if (in->sin_family != AF_INET || ntohl(in->sin_addr.s_addr) >> 24 != IN_LOOPBACKNET)
        die("--to %s is not on 127.0.0.0/8: this floods no machine but its own", text);
    return a;
}

static struct in_addr parse_source(const char *text) {
    struct in_addr host;
    if (inet_pton(AF_INET, text, &host) != 1)
        die("--from %s is not an IPv4 address", text);
    return host;
}

/* A socket for each host and port, the hosts in turn, connected to the server. */
static void open_sockets(void) {
    for (size_t i = 0; i < option.hosts * option.ports; i++) {
        struct sockaddr_in from = {.sin_family = AF_INET};
        from.sin_addr.s_addr = htonl(ntohl(option.from.s_addr) + (uint32_t)(i % option.hosts));
        sockets[i] = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (sockets[i] < 0 || bind(sockets[i], (struct sockaddr *)&from, sizeof from) ||
            connect(sockets[i], (struct sockaddr *)&option.to.raw, option.to.length))
            die("socket %zu: %s", i, strerror(errno));
    }
}

static void parse_options(int argc, char **argv) {
    static const struct option known[] = {
        {"to", required_argument, 0, 't'}, {"from", required_argument, 0, 'f'},
        {"rate", required_argument, 0, 'r'}, {"seconds", required_argument, 0, 's'},
        {"keys", required_argument, 0, 'k'}, {"first", required_argument, 0, 'i'},
        {"hosts", required_argument, 0, 'h'}, {"ports", required_argument, 0, 'p'},
        {"key", required_argument, 0, 'n'}, {0, 0, 0, 0},
    };
    option.from.s_addr = htonl(INADDR_LOOPBACK);
    for (int c; (c = getopt_long(argc, argv, "", known, NULL)) != -1;)
        switch (c) {
        case 't': option.to = parse_target(optarg); break;
        case 'f': option.from = parse_source(optarg); break;
        case 'r': option.rate = number("--rate", optarg, 0.001, MOST_RATE); break;
        case 's': option.seconds = number("--seconds", optarg, 0.001, MOST_SECONDS); break;
        case 'k': option.keys = (uint64_t)number("--keys", optarg, 1, 1e9); break;
        case 'i': option.first = (uint64_t)number("--first", optarg, 0, 9e9); break;
        case 'h': option.hosts = (size_t)number("--hosts", optarg, 1, MOST_HOSTS); break;
        case 'p': option.ports = (size_t)number("--ports", optarg, 1, MOST_SOCKETS); break;
        case 'n': option.key = optarg; break;
        default: exit(2);
        }
    if (!option.to.length || !option.rate || !option.seconds || optind < argc)
        die("usage: flood --to IPV4:PORT --rate N --seconds S [--from IPV4] [--hosts N] [--ports N] "
            "[--keys N] [--key NAME] [--first N]");
    if (option.hosts * option.ports > MOST_SOCKETS)
        die("%zu hosts of %zu ports, but %d sockets are the most", option.hosts, option.ports, MOST_SOCKETS);
    if (strlen(option.key) > LARGEST_KEY - strlen("-.example") - DIGITS)
        die("--key has %zu bytes, which leaves no room for the number", strlen(option.key));
}

int main(int argc, char **argv) {
    parse_options(argc, argv);
    prepare();
    open_sockets();
    uint64_t start = now_ns();
    run(start);
    double seconds = (double)(now_ns() - start) / 1e9;
    printf("{\"sent\": %ju, \"failed\": %ju, \"seconds\": %.6f, \"per_second\": %.1f}\n", sent, failed,
           seconds, (double)sent / seconds);
    return failed ? 1 : 0;
}
