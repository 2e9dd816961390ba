#define _GNU_SOURCE
#include "chunks.h"

#include <string.h>
#include <strings.h>

enum { SIZE, EXTENSION, SIZE_LF, DATA, DATA_CR, DATA_LF, TRAILER, TRAILER_LINE, LAST_LF };
enum { MOST_DIGITS = 15 };

static int is(const char *text, size_t size, const char *word) {
    return size == strlen(word) && !strncasecmp(text, word, size);
}

size_t plain_head(const char *data, size_t size) {
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

int chunks_take(struct chunks *s, struct columns *kept, double now, const char *data,
                size_t size) {
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
            if (!columns_keep(kept, now, 0, data + i, part)) return CLOSED;
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
            return ++i < size ? ENDED | UNASKED : ENDED;
        }
    }
    return 0;
}
