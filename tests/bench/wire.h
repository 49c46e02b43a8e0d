/* What load.c, backend.c and flood.c must agree on: addresses, vars, filler bytes, the one reply, and what an
 * announcement looks like.
 *
 * Every body, of a request or of a reply, is the alphabet over and over, so that the other end can check any
 * piece of it by its offset alone. The programs are for Linux and have one thread each; load and backend wait
 * on one edge-triggered epoll descriptor.
 */
#ifndef WIRE_H
#define WIRE_H

#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

enum {
    ALPHABET = 26,
    CHUNK = 1 << 16,  /* bytes read at a time: what a socket buffer on loopback holds at first */
    EVENTS = 256,     /* events taken at a time: more than the clients of any case */
    SMALLEST_REPLY = 128,
    LARGEST_KEY = 255,    /* bytes; a router keeps its length in a byte */
    PACKET_ROOM = 1024,   /* bytes of an announcement: two values of 255 and the small fields */
};

struct address {
    struct sockaddr_storage raw;
    socklen_t length;
};

__attribute__((noreturn, format(printf, 1, 2)))
static inline void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(2);
}

static inline uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* A number from the command line; the whole text must be one, between low and high. */
static inline double number(const char *name, const char *text, double low, double high) {
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= low && value <= high))
        die("%s %s is not a number from %.15g to %.15g", name, text, low, high);
    return value;
}

/* "127.0.0.1:3031", or a path with a slash for a unix socket. */
static inline struct address parse_address(const char *text) {
    struct address a = {.length = sizeof(struct sockaddr_in)};
    if (strchr(text, '/')) {
        struct sockaddr_un *un = (struct sockaddr_un *)&a.raw;
        if (strlen(text) >= sizeof un->sun_path)
            die("%s: a unix path of %zu bytes, but %zu is the most", text, strlen(text),
                sizeof un->sun_path - 1);
        un->sun_family = AF_UNIX;
        strcpy(un->sun_path, text);
        a.length = sizeof *un;
        return a;
    }
    struct sockaddr_in *in = (struct sockaddr_in *)&a.raw;
    const char *colon = strrchr(text, ':');
    char host[INET_ADDRSTRLEN] = "";
    if (colon && (size_t)(colon - text) < sizeof host)
        memcpy(host, text, (size_t)(colon - text));
    if (!colon || inet_pton(AF_INET, host, &in->sin_addr) != 1)
        die("%s is neither IPV4:PORT nor a path", text);
    in->sin_family = AF_INET;
    in->sin_port = htons((uint16_t)number("port", colon + 1, 0, 65535));
    return a;
}

static inline char *append_var(char *at, const char *key, const char *value, size_t length) {
    size_t key_length = strlen(key);
    *at++ = (char)key_length, *at++ = (char)(key_length >> 8);
    at = mempcpy(at, key, key_length);
    *at++ = (char)length, *at++ = (char)(length >> 8);
    return mempcpy(at, value, length);
}

/* The fields in the order in which a uWSGI worker sends them; modifier1 224, command 0 = subscribe. */
static inline size_t build_announcement(char packet[PACKET_ROOM], const char *key, const char *address) {
    const char *vars[][2] = {
        {"key", key}, {"address", address}, {"modifier1", "0"}, {"modifier2", "0"},
        {"cores", "1"}, {"load", "0"}, {"weight", "1"},
    };
    char *at = packet + 4;
    for (size_t i = 0; i < sizeof vars / sizeof *vars; i++)
        at = append_var(at, vars[i][0], vars[i][1], strlen(vars[i][1]));
    size_t datasize = (size_t)(at - packet) - 4;
    packet[0] = (char)224, packet[3] = 0;
    packet[1] = (char)datasize, packet[2] = (char)(datasize >> 8);
    return datasize + 4;
}

/* Room for CHUNK bytes from any phase of the alphabet: body byte i equals filler()[i % ALPHABET]. */
static inline const char *filler(void) {
    static char letters[CHUNK + ALPHABET];
    if (!letters[0])
        for (size_t i = 0; i < sizeof letters; i++)
            letters[i] = (char)('a' + i % ALPHABET);
    return letters;
}

static inline void fill(char *to, size_t length) {
    for (size_t i = 0; i < length; i++)
        to[i] = (char)('a' + i % ALPHABET);
}

/* The whole reply of size bytes. Content-Length is padded with blanks, so the head's length never varies. */
static inline char *build_reply(size_t size) {
    const char *form = "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n"
                       "Content-Length: %10zu\r\n\r\n";
    size_t head = (size_t)snprintf(NULL, 0, form, size);
    char *reply = malloc(size + head + 1);
    if (!reply)
        die("no memory for a reply of %zu bytes", size);
    snprintf(reply, head + 1, form, size - head);
    fill(reply + head, size - head);
    return reply;
}

#endif
