// Reads many sockets in a thread of its own: what comes is stamped and kept, and the program is
// woken only when there is something to decide. No interpreter stands between network and clock.
//
// An answer of HTTP/1.1 that is 200 in plain chunks is taken apart here until it has ended
// (CHUNKED). On a connection of HTTP/2 (FRAMED) the DATA of calls is kept, other frames are passed.
// Anything else is passed as it comes (PASSING). One event file tells the program that streams have
// something to say; `reader_told` says which.

#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "chunks.h"
#include "columns.h"
#include "frames.h"

enum { PASSING, CHUNKED, RESTING, FRAMED, GONE };
// Reads that come closer than this, in seconds, are gathered for so many microseconds: longer where a
// connection has one stream, since a read has the stamp of its last packet alone.
static const double CLOSE = 0.001;
enum { WAIT_ONE = 900, WAIT_MANY = 200 };
static const double MOST_LATE = 10.0;  // seconds between arrival and read; more is a clock set anew

enum { EVENTS = 256, BUFFER = 1 << 16, FRAMED_READ = 512, MOST_READS = 256 };

struct stream {
    int fd, mode, expecting, told, waiting, error;
    double ended;
    char *head;
    size_t head_size;
    struct chunks chunks;
    struct frames *frames;
    struct columns kept;
    struct stream *next;  // of all streams
    struct stream *behind;  // in the line of those who have something to say
};

struct reader {
    int epoll, event, stop;
    pthread_t thread;
    pthread_mutex_t lock;
    struct stream *streams, *first, *last;
    int stamped;  // whether the system stamped the last read
    int full;  // whether there may be more than it took
    int framed;  // connections of HTTP/2
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

static int start_chunks(struct stream *stream, const char *data, size_t size) {
    char *head = realloc(stream->head, size);
    if (!head) return 0;
    memcpy(head, data, size);
    stream->head = head;
    stream->head_size = size;
    stream->mode = CHUNKED;
    stream->chunks = (struct chunks){0};
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
        what = columns_keep(&stream->kept, now, 0, data, size) ? CAME : CLOSED;
    } else if (stream->mode == FRAMED) {
        what = frames_take(stream->frames, &stream->kept, now, data, size);
    } else if (stream->mode == CHUNKED) {
        what = chunks_take(&stream->chunks, &stream->kept, now, data, size);
        if (what) stream->mode = RESTING;
        if (what & ENDED) stream->ended = now;
    } else if (stream->mode == RESTING) {
        what = UNASKED;
    }
    if (what & CLOSED) stream->error = ENOMEM;
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

// Few packets at a time where many streams share the stamp of the last one. (Linux puts up to 17 that
// wait to be read together, with the stamp of the last.)
static size_t room_to_read(const struct stream *stream) {
    if (stream->mode != FRAMED) return BUFFER;
    size_t lacking = frames_lacking(stream->frames);
    return lacking > FRAMED_READ ? lacking : FRAMED_READ;
}

static void read_one(struct reader *reader, struct stream *stream) {
    char notes[CMSG_SPACE(sizeof(struct timespec))];
    struct iovec place = {reader->buffer, room_to_read(stream)};
    struct msghdr message = {.msg_iov = &place, .msg_iovlen = 1, .msg_control = notes,
                             .msg_controllen = sizeof notes};
    ssize_t size = recvmsg(stream->fd, &message, MSG_DONTWAIT);
    double now = now_seconds();
    if (size > 0) {
        reader->full = (size_t)size == place.iov_len;
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
    int flowing = 0;
    for (;;) {
        int count = 0;
        // To wake for each read costs as much as the read; who stamps it is not this thread.
        if (flowing) {
            usleep(__atomic_load_n(&reader->framed, __ATOMIC_RELAXED) ? WAIT_MANY : WAIT_ONE);
            count = epoll_wait(reader->epoll, events, EVENTS, 0);
        }
        if (!count) count = epoll_wait(reader->epoll, events, EVENTS, -1);
        if (count < 0 && errno != EINTR) return NULL;
        double now = now_seconds();
        flowing = now - before < CLOSE;
        before = now;
        for (int i = 0; i < count; i++) {
            struct stream *stream = events[i].data.ptr;
            if (!stream) return NULL;
            int reads = 0;
            do {
                reader->full = 0;
                // Held for one read at a time: who sends must not wait for a row of reads.
                pthread_mutex_lock(&reader->lock);
                if (stream->mode != GONE) read_one(reader, stream);
                pthread_mutex_unlock(&reader->lock);
            } while (reader->full && ++reads < MOST_READS);
        }
        flowing &= reader->stamped;
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
        frames_close(stream->frames);
        columns_free(&stream->kept);
        free(stream);
    }
    close(reader->epoll);
    close(reader->stop);
    pthread_mutex_destroy(&reader->lock);
    free(reader);
}

static void clear(struct stream *stream) {
    stream->head_size = 0;
    columns_clear(&stream->kept);
}

static void let_go(struct reader *reader, struct stream *stream) {
    stream->mode = GONE;
    stream->told = 0;
    clear(stream);
    if (!stream->frames) return;
    frames_close(stream->frames);
    stream->frames = NULL;
    __atomic_sub_fetch(&reader->framed, 1, __ATOMIC_RELAXED);
}

// A socket to read from now on: passing, or with `most_owed` framed (see frames.h). NULL: no memory,
// or too many files.
struct stream *reader_add(struct reader *reader, int fd, uint64_t most_owed) {
    pthread_mutex_lock(&reader->lock);
    // An event of the one that was here before finds nothing to read on the new socket.
    struct stream *stream = reader->streams;
    while (stream && (stream->mode != GONE || stream->waiting)) stream = stream->next;
    if (!stream && (stream = calloc(1, sizeof *stream))) {
        stream->mode = GONE;
        stream->next = reader->streams;
        reader->streams = stream;
    }
    struct frames *frames = stream && most_owed ? frames_open(most_owed) : NULL;
    if (stream && most_owed && !frames) stream = NULL;
    if (stream) {
        stream->fd = fd;
        stream->mode = frames ? FRAMED : PASSING;
        stream->frames = frames;
        if (frames) __atomic_add_fetch(&reader->framed, 1, __ATOMIC_RELAXED);
        stream->told = stream->error = stream->expecting = 0;
        clear(stream);
        int yes = 1;
        setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &yes, sizeof yes);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = stream};
        if (epoll_ctl(reader->epoll, EPOLL_CTL_ADD, fd, &event)) {
            let_go(reader, stream);
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
    let_go(reader, stream);
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

// How long the head is of an answer that is taken apart, 0 for none; copied if there is room.
size_t reader_head(struct reader *reader, struct stream *stream, char *head, size_t room) {
    pthread_mutex_lock(&reader->lock);
    size_t size = stream->head_size;
    if (size && size <= room) memcpy(head, stream->head, size);
    pthread_mutex_unlock(&reader->lock);
    return size;
}

// A call of a framed connection: its DATA is kept from now on. 0: it is passed, there is no memory.
int reader_call(struct reader *reader, struct stream *stream, uint32_t number) {
    pthread_mutex_lock(&reader->lock);
    int kept = stream->frames && frames_call(stream->frames, number);
    pthread_mutex_unlock(&reader->lock);
    return kept;
}

// Bytes kept for calls since it was last asked.
uint64_t reader_owed(struct reader *reader, struct stream *stream) {
    pthread_mutex_lock(&reader->lock);
    uint64_t owed = stream->frames ? frames_owed(stream->frames) : 0;
    pthread_mutex_unlock(&reader->lock);
    return owed;
}

static struct columns *kept_for(struct stream *stream, uint32_t call) {
    if (!call) return &stream->kept;
    return stream->frames ? frames_kept(stream->frames, call) : NULL;
}

// How many pieces there are so far of a call, or with 0 of an answer that is taken apart.
size_t reader_pieces(struct reader *reader, struct stream *stream, uint32_t call) {
    pthread_mutex_lock(&reader->lock);
    struct columns *kept = kept_for(stream, call);
    size_t pieces = kept && (call || stream->head_size) ? kept->pieces : 0;
    pthread_mutex_unlock(&reader->lock);
    return pieces;
}

// Copies the pieces of a call (0: of the stream itself) that came before more than `last` passed
// frames if there is room for `*pieces` and `*used` bytes, says how many they are, and forgets all.
// Without room, 0, nothing is copied or forgotten.
int reader_take(struct reader *reader, struct stream *stream, uint32_t call, uint64_t last,
                size_t *pieces, size_t *used, double *times, uint64_t *ends, char *bytes) {
    static const struct columns none = {0};
    pthread_mutex_lock(&reader->lock);
    struct columns *kept = kept_for(stream, call);
    int fits = columns_copy(kept ? kept : &none, last, pieces, used, times, ends, bytes);
    if (fits && call) {
        if (stream->frames) frames_forget(stream->frames, call);
    } else if (fits && kept->pieces) {
        clear(stream);
        stream->told &= ~CAME;
    }
    pthread_mutex_unlock(&reader->lock);
    return fits;
}
