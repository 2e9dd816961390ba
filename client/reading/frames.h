// Frames of HTTP/2 (RFC 9113, 4.1): what belongs to a call is kept for it, all others are passed.

#ifndef LOADSTONE_FRAMES_H
#define LOADSTONE_FRAMES_H

#include "columns.h"

// One connection.
struct frames;

// `most_owed`: bytes kept for calls after which OWED is told, so that windows stay open. NULL: no
// memory.
struct frames *frames_open(uint64_t most_owed);
void frames_close(struct frames *);

// Cuts what was read. Each whole frame that is passed becomes one piece of `passing`; DATA of a call
// becomes a piece of the call, its order the number of frames passed before it. Returns what to tell.
int frames_take(struct frames *, struct columns *passing, double now, const char *data,
                size_t size);

// Bytes that the frame under way still lacks, as far as is known.
size_t frames_lacking(const struct frames *);

// DATA of this stream is kept from now on. 0: no memory, and it is passed.
int frames_call(struct frames *, uint32_t number);

// What is kept of a call; NULL for none.
struct columns *frames_kept(struct frames *, uint32_t number);

// Its DATA is passed from now on.
void frames_forget(struct frames *, uint32_t number);

// Bytes kept for calls since it was last asked, padding included.
uint64_t frames_owed(struct frames *);

#endif
