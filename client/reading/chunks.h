// Answers of HTTP/1.1 in plain chunks (RFC 9112, 7.1).

#ifndef LOADSTONE_CHUNKS_H
#define LOADSTONE_CHUNKS_H

#include "columns.h"

// All 0 at the start of a body.
struct chunks {
    int at, digits;
    uint64_t left;
};

// How long the head at the start of `data` is, if it is whole and says 200 in plain chunks; else 0.
// What it says besides is for a real parser, in the end.
size_t plain_head(const char *data, size_t size);

// Keeps the content of each chunk, or as much of it as came. Returns what to tell: 0 to go on,
// ENDED, with UNASKED when more came after the end, BROKEN, or CLOSED when there is no memory.
int chunks_take(struct chunks *, struct columns *, double now, const char *data, size_t size);

#endif
