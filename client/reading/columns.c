#include "columns.h"

#include <stdlib.h>
#include <string.h>

enum { FIRST_PIECES = 64, FIRST_BYTES = 4096 };

static int more_pieces(struct columns *c) {
    size_t room = c->room ? 2 * c->room : FIRST_PIECES;
    double *times = realloc(c->times, room * sizeof *times);
    if (times) c->times = times;
    uint64_t *ends = realloc(c->ends, room * sizeof *ends);
    if (ends) c->ends = ends;
    uint64_t *orders = realloc(c->orders, room * sizeof *orders);
    if (orders) c->orders = orders;
    if (!times || !ends || !orders) return 0;
    c->room = room;
    return 1;
}

static int more_bytes(struct columns *c, size_t least) {
    size_t size = c->size ? c->size : FIRST_BYTES;
    while (size < least) size *= 2;
    char *bytes = realloc(c->bytes, size);
    if (!bytes) return 0;
    c->bytes = bytes;
    c->size = size;
    return 1;
}

int columns_keep(struct columns *c, double time, uint64_t order, const char *data, size_t size) {
    if (c->pieces == c->room && !more_pieces(c)) return 0;
    if (c->used + size > c->size && !more_bytes(c, c->used + size)) return 0;
    memcpy(c->bytes + c->used, data, size);
    c->used += size;
    c->times[c->pieces] = time;
    c->orders[c->pieces] = order;
    c->ends[c->pieces++] = c->used;
    return 1;
}

int columns_copy(const struct columns *c, uint64_t last, size_t *pieces, size_t *used,
                 double *times, uint64_t *ends, char *bytes) {
    size_t count = c->pieces;
    while (count && c->orders[count - 1] > last) count--;
    size_t size = count ? (size_t)c->ends[count - 1] : 0;
    int fits = count <= *pieces && size <= *used;
    *pieces = count;
    *used = size;
    if (fits && count) {
        memcpy(times, c->times, count * sizeof *times);
        memcpy(ends, c->ends, count * sizeof *ends);
        memcpy(bytes, c->bytes, size);
    }
    return fits;
}

void columns_clear(struct columns *c) {
    c->pieces = c->used = 0;
}

void columns_free(struct columns *c) {
    free(c->times);
    free(c->ends);
    free(c->orders);
    free(c->bytes);
}
