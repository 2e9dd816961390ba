/* One layer's attention as the CPU kernels see it: rows of new tokens and the cache they go to. */
#ifndef LOADSTONE_CPU_CACHE_H_
#define LOADSTONE_CPU_CACHE_H_

#include <string.h>

#include "cpu_math.h"
#include "cpu_threads.h"

#define MAX_HEAD 256

/* Row n brings lengths[n] tokens from position starts[n] on for slot slots[n]. Position p lies at
 * index p % length of the slot. A row without tokens or with a slot out of range is idle. Without a
 * cache starts, slots, k and v are NULL: every row begins at position 0. */
typedef struct {
  const float *qkv, *cos, *sin; /* [rows, tokens, heads, group + 2, head], [rows, tokens, head/2] */
  const int32_t *starts, *lengths, *slots;
  void *k, *v;              /* [slot_count, heads, length, head], float32 or int8 */
  float *k_scale, *v_scale; /* [slot_count, heads, length]; NULL for float32 */
  float* out;               /* [rows, tokens, heads, group, head] */
  float scale;              /* of the scores */
  const float* slopes;      /* [heads, group], of ALiBi: score -= slope * distance; NULL: none */
  int64_t rows, tokens, heads, group, head, slot_count, length;
} Attention;

/* How many tokens row n brings. */
static inline int64_t tokens_of(const Attention* a, int64_t n) {
  if (a->slots != NULL && (a->slots[n] < 0 || a->slots[n] >= a->slot_count)) return 0;
  return a->lengths[n] < 0 ? 0 : least(a->lengths[n], a->tokens);
}

/* The first entry of a head in the cache of row n, counted in vectors. */
static inline int64_t entry_of(const Attention* a, int64_t n, int64_t head) {
  return (a->slots[n] * a->heads + head) * a->length;
}

/* The group's queries, then the key, then the value of a token and head. */
static inline const float* vectors_of(const Attention* a, int64_t n, int64_t t, int64_t head) {
  return a->qkv + ((n * a->tokens + t) * a->heads + head) * (a->group + 2) * a->head;
}

/* ALiBi's slope of a query head; 0 if there is none. */
static inline float slope_of(const Attention* a, int64_t head, int64_t g) {
  return a->slopes == NULL ? 0.0f : a->slopes[head * a->group + g];
}

/* A vector turned to its position, times `factor`. */
static inline void turn(const Attention* a, int64_t n, int64_t t, const float* x, float factor,
                        float* out) {
  const int64_t half = a->head / 2;
  const int64_t at = (n * a->tokens + t) * half;
  const float *cos = a->cos + at, *sin = a->sin + at;
  for (int64_t i = 0; i < half; i++) {
    out[i] = (x[i] * cos[i] - x[i + half] * sin[i]) * factor;
    out[i + half] = (x[i + half] * cos[i] + x[i] * sin[i]) * factor;
  }
}

/* int8 codes of a vector; returns what one is worth. */
static inline float encode(const float* x, int64_t count, int8_t* codes) {
  const float scale = largest_magnitude(x, count) / 127.0f;
  const __m512 divisor = _mm512_set1_ps(scale == 0.0f ? 1.0f : scale);
  for (int64_t i = 0; i < count; i += LANES) {
    __m512i rounded = _mm512_cvtps_epi32(_mm512_div_ps(_mm512_loadu_ps(x + i), divisor));
    _mm_storeu_si128((__m128i*)(codes + i), _mm512_cvtepi32_epi8(rounded));
  }
  return scale;
}

static inline void decode(const int8_t* codes, float scale, int64_t count, float* x) {
  for (int64_t i = 0; i < count; i += LANES) {
    __m512i wide = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)(codes + i)));
    _mm512_storeu_ps(x + i, _mm512_mul_ps(_mm512_cvtepi32_ps(wide), _mm512_set1_ps(scale)));
  }
}

/* Puts a vector into `cache`, with its scale if the cache is int8. */
static inline void put(const Attention* a, void* cache, float* scales, int64_t entry,
                       const float* x) {
  if (scales == NULL) memcpy((float*)cache + entry * a->head, x, (size_t)a->head * sizeof(float));
  else scales[entry] = encode(x, a->head, (int8_t*)cache + entry * a->head);
}

/* Writes the key and value of a token to the cache. */
static inline void put_token(const Attention* a, int64_t n, int64_t t, int64_t head) {
  float key[MAX_HEAD];
  const int64_t entry = entry_of(a, n, head) + (a->starts[n] + t) % a->length;
  const float* fresh = vectors_of(a, n, t, head) + a->group * a->head;
  turn(a, n, t, fresh, 1.0f, key);
  put(a, a->k, a->k_scale, entry, key);
  put(a, a->v, a->v_scale, entry, fresh + a->head);
}

/* cpu_prefill.c. */

/* Attends and writes when rows have several tokens. `laid`: scratch memory of `laid_floats`, which
 * starts on a LINE. */
XLA_FFI_Error* prefill_attention(const XLA_FFI_CallFrame* frame, const Attention* a, float* laid);

/* Attends and writes nothing. */
XLA_FFI_Error* attend_rows(const XLA_FFI_CallFrame* frame, const Attention* a, float* laid);

int64_t laid_floats(const Attention* a);

#endif
