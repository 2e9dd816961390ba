// What came over a stream, kept in columns until the program asks for it.

#ifndef LOADSTONE_COLUMNS_H
#define LOADSTONE_COLUMNS_H

#include <stddef.h>
#include <stdint.h>

// What the program is told of a stream. OWED: enough was read that its sender must be told.
enum { CAME = 1, ENDED = 2, CLOSED = 4, BROKEN = 8, UNASKED = 16, OWED = 32 };

// Piece k came at times[k] and ends in `bytes` at ends[k]; orders[k] never falls.
struct columns {
    double *times;
    uint64_t *ends, *orders;
    size_t pieces, room;
    char *bytes;
    size_t used, size;
};

// 0: no memory.
int columns_keep(struct columns *, double time, uint64_t order, const char *data, size_t size);

// Copies the pieces of order `last` and below if `*pieces` and `*used` bytes are room enough, and
// says how many they are.
int columns_copy(const struct columns *, uint64_t last, size_t *pieces, size_t *used,
                 double *times, uint64_t *ends, char *bytes);

void columns_clear(struct columns *);

// What it owns, not the struct itself.
void columns_free(struct columns *);

#endif
