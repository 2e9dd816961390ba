// Messages of the Orchestrator service over gRPC, as far as counting the ids in them needs.

#include <stddef.h>
#include <stdint.h>

enum { PREFIX = 5, LONGEST = PREFIX + 2 + 127 };  // of lengths that are one byte each
enum { CONTENT = 0x1A, SAMPLE = 0x0A, TEXT = 0x0A, IDS = 0x12 };  // tags, as the .proto numbers them
enum { MORE = 0x80, MOST_MORE = 4 };  // bytes of a number that say that it goes on

// RFC 3629, 4: neither too long forms nor surrogates.
static int is_utf8(const uint8_t *at, const uint8_t *end) {
    while (at < end) {
        uint8_t c = *at++, low = 0x80, high = 0xBF;
        if (c < 0x80) continue;
        int more = c >= 0xC2 && c <= 0xDF ? 1 : c >= 0xE0 && c <= 0xEF ? 2
                 : c >= 0xF0 && c <= 0xF4 ? 3 : 0;
        if (!more || end - at < more) return 0;
        if (c == 0xE0) low = 0xA0;
        if (c == 0xED) high = 0x9F;
        if (c == 0xF0) low = 0x90;
        if (c == 0xF4) high = 0x8F;
        for (; more; more--, at++, low = 0x80, high = 0xBF) {
            if (*at < low || *at > high) return 0;
        }
    }
    return 1;
}

static int64_t count_ids(const uint8_t *piece, size_t size) {
    if (size < PREFIX + 6 || size > LONGEST) return -1;
    size_t n = size - PREFIX;
    if (piece[0] || piece[1] || piece[2] || piece[3] || piece[4] != n) return -1;
    const uint8_t *at = piece + PREFIX, *end = piece + size;
    if (at[0] != CONTENT || at[1] != n - 2 || at[2] != SAMPLE || at[3] != n - 4) return -1;
    at += 4;
    if (*at == TEXT) {
        const uint8_t *text = at + 2;
        if (at[1] >= end - text || !is_utf8(text, text + at[1])) return -1;
        at = text + at[1];
    }
    if (end - at < 3 || at[0] != IDS || at[1] != end - at - 2) return -1;
    int64_t ids = 0;
    int more = 0;
    for (at += 2; at < end; at++) {
        if (*at & MORE) {
            if (++more > MOST_MORE) return -1;
        } else {
            more = 0;
            ids++;
        }
    }
    return more ? -1 : ids;
}

// counts[k]: how many ids piece k brought, if it is one whole message of one sample of text and ids and
// nothing else; else -1. Returns how many pieces are something else.
size_t samples_count(const char *bytes, const uint64_t *ends, size_t pieces, int64_t *counts) {
    size_t start = 0, others = 0;
    for (size_t k = 0; k < pieces; k++) {
        counts[k] = count_ids((const uint8_t *)bytes + start, (size_t)ends[k] - start);
        others += counts[k] < 0;
        start = (size_t)ends[k];
    }
    return others;
}
