// Reads many sockets in a thread of its own: what comes is stamped and kept, and the program is
// woken only when there is something to decide. No interpreter stands between network and clock.
//
// An answer of HTTP/1.1 that is 200 in plain chunks is taken apart here until it has ended
// (CHUNKED); anything else is passed as it comes (PASSING). One event file tells the program that
// streams have something to say; `reader_told` says which.

#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PASSING, CHUNKED, RESTING, GONE };
enum { CAME = 1, ENDED = 2, CLOSED = 4, BROKEN = 8, UNASKED = 16 };
enum { SIZE, EXTENSION, SIZE_LF, DATA, DATA_CR, DATA_LF, TRAILER, TRAILER_LINE, LAST_LF };
// Reads that come closer than this, in seconds, are gathered for so many microseconds.
static const double CLOSE = 0.001;
enum { WAIT_MICROSECONDS = 900 };
static const double MOST_LATE = 10.0;  // seconds between arrival and read; more is a clock set anew

enum { EVENTS = 256, BUFFER = 1 << 16, MOST_DIGITS = 15 };

struct stream {
    int fd, mode, expecting, told, waiting, error;
    int at, digits;
    uint64_t left;
    double ended;
    char *head;
    size_t head_size;
    double *times;
    uint64_t *ends;
    size_t pieces, room;
    char *bytes;
    size_t used, size;
    struct stream *next;  // of all streams
    struct stream *behind;  // in the line of those who have something to say
};

struct reader {
    int epoll, event, stop;
    pthread_t thread;
    pthread_mutex_t lock;
    struct stream *streams, *first, *last;
    int stamped;  // whether the system stamped the last read
    char buffer[BUFFER];
};

static double now_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void tell(struct reader *reader, struct stream *stream, int what) {
    stream->told |= what;
    if (stream->waiting) return;
    stream->waiting = 1;
    stream->behind = NULL;
    if (reader->last) {
        reader->last->behind = stream;
    } else {
        reader->first = stream;
        uint64_t one = 1;
        if (write(reader->event, &one, sizeof one) < 0) { /* full: it is awake already */ }
    }
    reader->last = stream;
}

static int keep(struct stream *stream, double now, const char *data, size_t size) {
    if (stream->pieces == stream->room) {
        size_t room = stream->room ? 2 * stream->room : 64;
        double *times = realloc(stream->times, room * sizeof *times);
        if (times) stream->times = times;
        uint64_t *ends = realloc(stream->ends, room * sizeof *ends);
        if (ends) stream->ends = ends;
        if (!times || !ends) return 0;
        stream->room = room;
    }
    if (stream->used + size > stream->size) {
        size_t wanted = stream->size ? stream->size : 4096;
        while (wanted < stream->used + size) wanted *= 2;
        char *bytes = realloc(stream->bytes, wanted);
        if (!bytes) return 0;
        stream->bytes = bytes;
        stream->size = wanted;
    }
    memcpy(stream->bytes + stream->used, data, size);
    stream->used += size;
    stream->times[stream->pieces] = now;
    stream->ends[stream->pieces++] = stream->used;
    return 1;
}

static int is(const char *text, size_t size, const char *word) {
    return size == strlen(word) && !strncasecmp(text, word, size);
}

// How long the head at the start of `data` is, if it is whole and says 200 in plain chunks; else 0.
// What it says besides is for a real parser, in the end.
static size_t plain_head(const char *data, size_t size) {
    static const char start[] = "HTTP/1.1 200 ";
    if (size < sizeof start || memcmp(data, start, sizeof start - 1)) return 0;
    const char *end = memmem(data, size, "\r\n\r\n", 4);
    if (!end) return 0;
    int chunked = 0;
    for (const char *line = (const char *)memchr(data, '\n', size) + 1; line < end;) {
        const char *last = memmem(line, (size_t)(end + 2 - line), "\r\n", 2);
        const char *colon = memchr(line, ':', (size_t)(last - line));
        if (!colon) return 0;
        size_t name = (size_t)(colon - line);
        if (is(line, name, "content-length") || is(line, name, "content-encoding")) return 0;
        if (is(line, name, "transfer-encoding")) {
            const char *value = colon + 1;
            while (value < last && *value == ' ') value++;
            if (chunked++ || !is(value, (size_t)(last - value), "chunked")) return 0;
        }
        line = last + 2;
    }
    return chunked ? (size_t)(end + 4 - data) : 0;
}

static int digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

// RFC 9112, 7.1. What is told: 0 to go on, ENDED, with UNASKED when more came after the end, or
// BROKEN.
static int unchunk(struct stream *s, double now, const char *data, size_t size) {
    for (size_t i = 0; i < size;) {
        char c = data[i];
        switch (s->at) {
        case SIZE: {
            int value = digit(c);
            if (value >= 0) {
                if (++s->digits > MOST_DIGITS) return BROKEN;
                s->left = 16 * s->left + (uint64_t)value;
            } else if (!s->digits) {
                return BROKEN;
            } else if (c == '\r') {
                s->at = SIZE_LF;
            } else if (c == ';') {
                s->at = EXTENSION;
            } else {
                return BROKEN;
            }
            i++;
            break;
        }
        case EXTENSION:
            if (c == '\n') return BROKEN;
            if (c == '\r') s->at = SIZE_LF;
            i++;
            break;
        case SIZE_LF:
            if (c != '\n') return BROKEN;
            s->at = s->left ? DATA : TRAILER;
            i++;
            break;
        case DATA: {
            size_t part = size - i < s->left ? size - i : (size_t)s->left;
            if (!keep(s, now, data + i, part)) {
                s->error = ENOMEM;
                return CLOSED;
            }
            s->left -= part;
            i += part;
            if (!s->left) s->at = DATA_CR;
            break;
        }
        case DATA_CR:
            if (c != '\r') return BROKEN;
            s->at = DATA_LF;
            i++;
            break;
        case DATA_LF:
            if (c != '\n') return BROKEN;
            s->at = SIZE;
            s->digits = 0;
            i++;
            break;
        case TRAILER:
            s->at = c == '\r' ? LAST_LF : TRAILER_LINE;
            i++;
            break;
        case TRAILER_LINE:
            if (c == '\n') s->at = TRAILER;
            i++;
            break;
        default:
            if (c != '\n') return BROKEN;
            s->ended = now;
            return ++i < size ? ENDED | UNASKED : ENDED;
        }
    }
    return 0;
}

static int start_chunks(struct stream *stream, const char *data, size_t size) {
    char *head = realloc(stream->head, size);
    if (!head) return 0;
    memcpy(head, data, size);
    stream->head = head;
    stream->head_size = size;
    stream->mode = CHUNKED;
    stream->at = SIZE;
    stream->digits = 0;
    stream->left = 0;
    return 1;
}

static void take_in(struct reader *reader, struct stream *stream, double now, const char *data,
                    size_t size) {
    int what = 0;
    size_t head = stream->expecting ? plain_head(data, size) : 0;
    stream->expecting = 0;
    if (head && start_chunks(stream, data, head)) {
        data += head;
        size -= head;
    }
    if (stream->mode == PASSING) {
        what = CAME;
        if (!keep(stream, now, data, size)) {
            stream->error = ENOMEM;
            what = CLOSED;
        }
    } else if (stream->mode == CHUNKED) {
        what = unchunk(stream, now, data, size);
        if (what) stream->mode = RESTING;
    } else if (stream->mode == RESTING) {
        what = UNASKED;
    }
    if (what) tell(reader, stream, what);
}

// When the system had the last byte of a read, which is before the read; `now` where it says nothing.
static double arrival(struct reader *reader, struct msghdr *message, double now) {
    reader->stamped = 0;
    for (struct cmsghdr *note = CMSG_FIRSTHDR(message); note; note = CMSG_NXTHDR(message, note)) {
        if (note->cmsg_level != SOL_SOCKET || note->cmsg_type != SCM_TIMESTAMPNS) continue;
        struct timespec then, today;
        memcpy(&then, CMSG_DATA(note), sizeof then);
        // It is told by the time of day, which may be set at any time: only the difference counts.
        clock_gettime(CLOCK_REALTIME, &today);
        double ago = difftime(today.tv_sec, then.tv_sec) + 1e-9 * (double)(today.tv_nsec - then.tv_nsec);
        reader->stamped = ago >= 0 && ago < MOST_LATE;
        return reader->stamped ? now - ago : now;
    }
    return now;
}

static void read_one(struct reader *reader, struct stream *stream) {
    char notes[CMSG_SPACE(sizeof(struct timespec))];
    struct iovec place = {reader->buffer, BUFFER};
    struct msghdr message = {.msg_iov = &place, .msg_iovlen = 1, .msg_control = notes,
                             .msg_controllen = sizeof notes};
    ssize_t size = recvmsg(stream->fd, &message, MSG_DONTWAIT);
    double now = now_seconds();
    if (size > 0) {
        take_in(reader, stream, arrival(reader, &message, now), reader->buffer, (size_t)size);
        return;
    }
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
    stream->error = size < 0 ? errno : 0;
    epoll_ctl(reader->epoll, EPOLL_CTL_DEL, stream->fd, NULL);
    tell(reader, stream, CLOSED);
}

static void *work(void *given) {
    struct reader *reader = given;
    struct epoll_event events[EVENTS];
    double before = 0;
    for (;;) {
        int count = epoll_wait(reader->epoll, events, EVENTS, -1);
        double now = now_seconds();
        // To wake for each read costs as much as the read; who stamps it is not this thread.
        if (reader->stamped && now - before < CLOSE) {
            usleep(WAIT_MICROSECONDS);
            count = epoll_wait(reader->epoll, events, EVENTS, 0);
            now = now_seconds();
        }
        before = now;
        if (count < 0 && errno != EINTR) return NULL;
        for (int i = 0; i < count; i++) {
            struct stream *stream = events[i].data.ptr;
            if (!stream) return NULL;
            // Held for one read at a time: who sends must not wait for a row of reads.
            pthread_mutex_lock(&reader->lock);
            if (stream->mode != GONE) read_one(reader, stream);
            pthread_mutex_unlock(&reader->lock);
        }
    }
}

// `event` is written when there is something to be told. NULL: no thread or files for it.
struct reader *reader_open(int event) {
    struct reader *reader = calloc(1, sizeof *reader);
    if (!reader) return NULL;
    reader->event = event;
    reader->epoll = epoll_create1(EPOLL_CLOEXEC);
    reader->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event stop = {.events = EPOLLIN, .data.ptr = NULL};
    // Signals are for the program's own thread.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int started = reader->epoll >= 0 && reader->stop >= 0 &&
                  !epoll_ctl(reader->epoll, EPOLL_CTL_ADD, reader->stop, &stop) &&
                  !pthread_mutex_init(&reader->lock, NULL) &&
                  !pthread_create(&reader->thread, NULL, work, reader);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (started) return reader;
    if (reader->epoll >= 0) close(reader->epoll);
    if (reader->stop >= 0) close(reader->stop);
    free(reader);
    return NULL;
}

// Ends the thread and forgets all streams; their sockets stay open.
void reader_close(struct reader *reader) {
    uint64_t one = 1;
    if (write(reader->stop, &one, sizeof one) < 0) { /* it is being told already */ }
    pthread_join(reader->thread, NULL);
    for (struct stream *stream = reader->streams, *next; stream; stream = next) {
        next = stream->next;
        free(stream->head);
        free(stream->times);
        free(stream->ends);
        free(stream->bytes);
        free(stream);
    }
    close(reader->epoll);
    close(reader->stop);
    pthread_mutex_destroy(&reader->lock);
    free(reader);
}

static void clear(struct stream *stream) {
    stream->pieces = stream->head_size = 0;
    stream->used = 0;
}

// A socket to read from now on, passing. NULL: no memory, or too many files.
struct stream *reader_add(struct reader *reader, int fd) {
    pthread_mutex_lock(&reader->lock);
    // An event of the one that was here before finds nothing to read on the new socket.
    struct stream *stream = reader->streams;
    while (stream && (stream->mode != GONE || stream->waiting)) stream = stream->next;
    if (!stream && (stream = calloc(1, sizeof *stream))) {
        stream->next = reader->streams;
        reader->streams = stream;
    }
    if (stream) {
        stream->fd = fd;
        stream->mode = PASSING;
        stream->told = stream->error = stream->expecting = 0;
        clear(stream);
        int yes = 1;
        setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &yes, sizeof yes);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = stream};
        if (epoll_ctl(reader->epoll, EPOLL_CTL_ADD, fd, &event)) {
            stream->mode = GONE;
            stream = NULL;
        }
    }
    pthread_mutex_unlock(&reader->lock);
    return stream;
}

// To be called before the socket is closed.
void reader_remove(struct reader *reader, struct stream *stream) {
    pthread_mutex_lock(&reader->lock);
    epoll_ctl(reader->epoll, EPOLL_CTL_DEL, stream->fd, NULL);
    stream->mode = GONE;
    stream->told = 0;
    clear(stream);
    pthread_mutex_unlock(&reader->lock);
}

// What comes next is an answer.
void reader_expect(struct reader *reader, struct stream *stream) {
    pthread_mutex_lock(&reader->lock);
    // What was passed and not taken yet was not asked for, and is not lost.
    if (stream->mode != PASSING) clear(stream);
    stream->mode = PASSING;
    stream->expecting = 1;
    pthread_mutex_unlock(&reader->lock);
}

// The next stream with something to say, NULL for none; `told` says what, and how its end was.
struct stream *reader_told(struct reader *reader, int *told, int *error, double *ended) {
    pthread_mutex_lock(&reader->lock);
    struct stream *stream = reader->first;
    if (stream) {
        reader->first = stream->behind;
        if (!reader->first) reader->last = NULL;
        stream->waiting = 0;
        *told = stream->mode == GONE ? 0 : stream->told;
        *error = stream->error;
        *ended = stream->ended;
        stream->told = 0;
    }
    pthread_mutex_unlock(&reader->lock);
    return stream;
}

// How many pieces there are of an answer that is taken apart.
size_t reader_pieces(struct reader *reader, struct stream *stream) {
    pthread_mutex_lock(&reader->lock);
    size_t pieces = stream->head_size ? stream->pieces : 0;
    pthread_mutex_unlock(&reader->lock);
    return pieces;
}

// How long the head is of an answer that is taken apart, 0 for none; copied if there is room.
size_t reader_head(struct reader *reader, struct stream *stream, char *head, size_t room) {
    pthread_mutex_lock(&reader->lock);
    size_t size = stream->head_size;
    if (size && size <= room) memcpy(head, stream->head, size);
    pthread_mutex_unlock(&reader->lock);
    return size;
}

// Copies at most `pieces` pieces and `used` bytes of them, whole pieces from the first on, and says
// how many; forgets all when all were copied. With no room it says what is needed.
int reader_take(struct reader *reader, struct stream *stream, size_t *pieces, size_t *used,
                double *times, uint64_t *ends, char *bytes) {
    pthread_mutex_lock(&reader->lock);
    int whole = stream->pieces <= *pieces && stream->used <= *used;
    *pieces = stream->pieces;
    *used = stream->used;
    if (whole && stream->pieces) {
        memcpy(times, stream->times, stream->pieces * sizeof *times);
        memcpy(ends, stream->ends, stream->pieces * sizeof *ends);
        memcpy(bytes, stream->bytes, stream->used);
        clear(stream);
        stream->told &= ~CAME;
    }
    pthread_mutex_unlock(&reader->lock);
    return whole;
}
