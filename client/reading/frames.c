// The program's own state machine stays the one judge of what a frame means: here DATA is kept only
// where nothing can be said of it (a call's, not its last, well padded).

#include "frames.h"

#include <stdlib.h>
#include <string.h>

enum { HEADER = 9, LARGEST_FRAME = 16384 };  // the size RFC 9113 allows unless one asks for more
enum { DATA = 0, END_STREAM = 0x1, PADDED = 0x8 };
enum { FIRST_CALLS = 256 };

struct frames {
    uint64_t passed, owed, most_owed;
    struct columns **calls;  // by number / 2: a client's are odd, and rise
    size_t room;
    int given_up;  // after a frame too long all is passed as it comes
    size_t held;
    char rest[HEADER + LARGEST_FRAME];  // a frame that is not whole yet
};

static uint32_t number_of(const char *frame) {
    const unsigned char *at = (const unsigned char *)frame + 5;
    return ((uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3]) &
           0x7fffffffu;
}

// With its header.
static size_t size_of(const char *frame) {
    const unsigned char *at = (const unsigned char *)frame;
    return HEADER + ((size_t)at[0] << 16 | (size_t)at[1] << 8 | at[2]);
}

static int pass(struct frames *f, struct columns *passing, double now, const char *data,
                size_t size) {
    if (!columns_keep(passing, now, 0, data, size)) return CLOSED;
    f->passed++;
    return CAME;
}

static int take_frame(struct frames *f, struct columns *passing, double now, const char *frame,
                      size_t size) {
    int flags = frame[4];
    struct columns *kept = NULL;
    if (frame[3] == DATA && !(flags & END_STREAM)) kept = frames_kept(f, number_of(frame));
    const char *data = frame + HEADER;
    size_t length = size - HEADER;
    if (kept && flags & PADDED) {
        size_t padding = length ? 1 + (size_t)(unsigned char)*data : 1;
        if (padding > length) {
            kept = NULL;
        } else {
            data++;
            length -= padding;
        }
    }
    if (!kept) return pass(f, passing, now, frame, size);
    if (length && !columns_keep(kept, now, f->passed, data, length)) return CLOSED;
    f->owed += size - HEADER;
    return f->owed > f->most_owed ? OWED : 0;
}

int frames_take(struct frames *f, struct columns *passing, double now, const char *data,
                size_t size) {
    int what = 0;
    while (size && !f->given_up) {
        if (!f->held && size >= HEADER && size_of(data) <= size &&
            size_of(data) <= sizeof f->rest) {
            size_t whole = size_of(data);
            what |= take_frame(f, passing, now, data, whole);
            data += whole;
            size -= whole;
            continue;
        }
        size_t wanted = f->held < HEADER ? HEADER : size_of(f->rest);
        size_t part = wanted - f->held < size ? wanted - f->held : size;
        memcpy(f->rest + f->held, data, part);
        f->held += part;
        data += part;
        size -= part;
        if (f->held < HEADER) continue;
        if (size_of(f->rest) > sizeof f->rest) {
            f->given_up = 1;
            what |= pass(f, passing, now, f->rest, f->held);
        } else if (f->held == size_of(f->rest)) {
            what |= take_frame(f, passing, now, f->rest, f->held);
            f->held = 0;
        }
    }
    return size ? what | pass(f, passing, now, data, size) : what;
}

size_t frames_lacking(const struct frames *f) {
    return f->held < HEADER || f->given_up ? 0 : size_of(f->rest) - f->held;
}

int frames_call(struct frames *f, uint32_t number) {
    size_t place = number / 2;
    if (place >= f->room) {
        size_t room = f->room ? f->room : FIRST_CALLS;
        while (room <= place) room *= 2;
        struct columns **calls = realloc(f->calls, room * sizeof *calls);
        if (!calls) return 0;
        memset(calls + f->room, 0, (room - f->room) * sizeof *calls);
        f->calls = calls;
        f->room = room;
    }
    if (!f->calls[place]) f->calls[place] = calloc(1, sizeof(struct columns));
    return f->calls[place] != NULL;
}

struct columns *frames_kept(struct frames *f, uint32_t number) {
    return number % 2 && number / 2 < f->room ? f->calls[number / 2] : NULL;
}

void frames_forget(struct frames *f, uint32_t number) {
    struct columns *kept = frames_kept(f, number);
    if (!kept) return;
    columns_free(kept);
    free(kept);
    f->calls[number / 2] = NULL;
}

uint64_t frames_owed(struct frames *f) {
    uint64_t owed = f->owed;
    f->owed = 0;
    return owed;
}

struct frames *frames_open(uint64_t most_owed) {
    struct frames *f = calloc(1, sizeof *f);
    if (f) f->most_owed = most_owed;
    return f;
}

void frames_close(struct frames *f) {
    if (!f) return;
    for (size_t place = 0; place < f->room; place++) frames_forget(f, 2 * (uint32_t)place + 1);
    free(f->calls);
    free(f);
}
