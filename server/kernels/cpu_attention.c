/* Attention of new tokens to the cache and to each other, for x86 CPUs with AVX-512, called through
 * XLA's FFI. It turns queries and keys to their positions, attends, and writes keys and values.
 *
 *   loadstone_attention(qkv, cos, sin, starts, lengths, slots, k, v[, k_scale, v_scale])
 *     -> out, the cache arrays, which are written in place, and for several tokens a row scratch
 *
 * k and v are float32, or int8 with a float32 scale for each vector. All arithmetic is float32, on
 * the values as the cache keeps them. A token sees the last `length` positions, itself included. An
 * idle row gives zeros, and so does a token behind the end of its row. `scratch` is float32 memory
 * that XLA knows of.
 *
 * This file has the form for one token a row, as in decode: a work item is one head of one row. It
 * writes the token first, which overwrites just the position that leaves the window, then goes
 * through BLOCK positions at a time with a running maximum, as flash attention does: scores stay in
 * L1 and the cache is read once. Positions that hold nothing are not read.
 */
#include "cpu_cache.h"

#define BLOCK 64 /* positions at a time */
#define GROUP 4  /* queries whose sums are held in registers together */
#define WIDTH 4  /* registers of a head that are summed together: 64 values */

/* Lane i of the result is the sum of all lanes of rows[i]. */
static inline __m512 sums_of(const __m512 rows[LANES]) {
  __m512 a[8], b[4], c[2];
  UNROLL for (int i = 0; i < 8; i++) /* pairs of rows, interleaved by lane in each quarter */
    a[i] = _mm512_add_ps(_mm512_unpacklo_ps(rows[2 * i], rows[2 * i + 1]),
                         _mm512_unpackhi_ps(rows[2 * i], rows[2 * i + 1]));
  UNROLL for (int i = 0; i < 4; i++) {
    __m512d low = _mm512_castps_pd(a[2 * i]), high = _mm512_castps_pd(a[2 * i + 1]);
    b[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(low, high)),
                         _mm512_castpd_ps(_mm512_unpackhi_pd(low, high)));
  }
  UNROLL for (int i = 0; i < 2; i++) /* quarters 0 and 2 of both, then 1 and 3 */
    c[i] = _mm512_add_ps(_mm512_shuffle_f32x4(b[2 * i], b[2 * i + 1], 0x88),
                         _mm512_shuffle_f32x4(b[2 * i], b[2 * i + 1], 0xdd));
  return _mm512_add_ps(_mm512_shuffle_f32x4(c[0], c[1], 0x88),
                       _mm512_shuffle_f32x4(c[0], c[1], 0xdd));
}

/* Part of a stored vector as floats. */
static inline __attribute__((always_inline)) __m512 load(const void* cache, int64_t at,
                                                         const int coded) {
  if (!coded) return _mm512_loadu_ps((const float*)cache + at);
  __m128i codes = _mm_loadu_si128((const __m128i*)((const int8_t*)cache + at));
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes));
}

/* Some registers of each head: `count` queries, `positions` entries that lie `head` apart. */
typedef struct {
  const void *cache, *ahead;   /* ahead: where to fetch the same part for later */
  int64_t at, positions, head; /* at: of the first entry's part */
} Part;

static inline __attribute__((always_inline)) void fetch(const Part* p, int64_t from,
                                                        const int width, const int coded) {
  const int size = coded ? 1 : 4;
  UNROLL for (int i = 0; i < width * LANES * size; i += LINE)
    _mm_prefetch((const char*)p->ahead + from * size + i, _MM_HINT_T1);
}

/* In the following, count, width and coded are constants wherever they are inlined, so that
 * queries, sums and entries stay in registers. */

/* The parts of `count` vectors, `head` floats apart. */
static inline __attribute__((always_inline)) void hold(__m512 held[GROUP][WIDTH], const float* x,
                                                       int64_t head, const int count,
                                                       const int width) {
  UNROLL for (int g = 0; g < count; g++)
    UNROLL for (int i = 0; i < width; i++)
      held[g][i] = _mm512_loadu_ps(x + g * head + i * LANES);
}

/* The part of entry s, while the same part is fetched ahead. */
static inline __attribute__((always_inline)) void read_entry(__m512 read[WIDTH], const Part* p,
                                                             int64_t s, const int width,
                                                             const int coded) {
  fetch(p, s * p->head, width, coded);
  UNROLL for (int i = 0; i < width; i++)
    read[i] = load(p->cache, p->at + s * p->head + i * LANES, coded);
}

/* products[g][s] += q[g] * keys[s], lane by lane. */
static inline __attribute__((always_inline)) void dot(Part p, const float* q,
                                                      __m512 (*products)[BLOCK], const int count,
                                                      const int width, const int coded) {
  __m512 queries[GROUP][WIDTH], key[WIDTH];
  hold(queries, q, p.head, count, width);
  for (int64_t s = 0; s < p.positions; s++) {
    read_entry(key, &p, s, width, coded);
    UNROLL for (int g = 0; g < count; g++) {
      __m512 sum = products[g][s];
      UNROLL for (int i = 0; i < width; i++) sum = _mm512_fmadd_ps(queries[g][i], key[i], sum);
      products[g][s] = sum;
    }
  }
}

/* out[g] += weights[g] @ values. */
static inline __attribute__((always_inline)) void mix(Part p, const float (*weights)[BLOCK],
                                                      float* out, const int count,
                                                      const int width, const int coded) {
  __m512 sums[GROUP][WIDTH], value[WIDTH];
  hold(sums, out, p.head, count, width);
  for (int64_t s = 0; s < p.positions; s++) {
    read_entry(value, &p, s, width, coded);
    UNROLL for (int g = 0; g < count; g++) {
      __m512 weight = _mm512_set1_ps(weights[g][s]);
      UNROLL for (int i = 0; i < width; i++)
        sums[g][i] = _mm512_fmadd_ps(weight, value[i], sums[g][i]);
    }
  }
  UNROLL for (int g = 0; g < count; g++)
    UNROLL for (int i = 0; i < width; i++)
      _mm512_storeu_ps(out + g * p.head + i * LANES, sums[g][i]);
}

/* A function for each size: in one function gcc 12 keeps such arrays in memory. */
#define SIZE(n, width, coded)                                                                  \
  static __attribute__((noinline)) void dot_##n##_##width##_##coded(Part p, const float* q,    \
                                                                    __m512(*products)[BLOCK]) { \
    dot(p, q, products, n, width, coded);                                                      \
  }                                                                                            \
  static __attribute__((noinline)) void mix_##n##_##width##_##coded(                           \
      Part p, const float (*weights)[BLOCK], float* out) {                                     \
    mix(p, weights, out, n, width, coded);                                                     \
  }
#define SIZES(n) SIZE(n, 1, 0) SIZE(n, 1, 1) SIZE(n, 4, 0) SIZE(n, 4, 1)
SIZES(1) SIZES(2) SIZES(3) SIZES(4)

/* [queries][wide][coded] */
#define ENTRY(name, n) \
  [n] = {{name##_##n##_1_0, name##_##n##_1_1}, {name##_##n##_4_0, name##_##n##_4_1}}
static void (*const dots[GROUP + 1][2][2])(Part, const float*, __m512 (*)[BLOCK]) = {
    ENTRY(dot, 1), ENTRY(dot, 2), ENTRY(dot, 3), ENTRY(dot, 4)};
static void (*const mixes[GROUP + 1][2][2])(Part, const float (*)[BLOCK], float*) = {
    ENTRY(mix, 1), ENTRY(mix, 2), ENTRY(mix, 3), ENTRY(mix, 4)};

static const void* entry(const Attention* a, const void* cache, int64_t at) {
  return (const char*)cache + at * (a->k_scale == NULL ? 4 : 1);
}

/* Where the newest token of a slot lies, and the slopes of the queries; slopes NULL: no ALiBi. */
typedef struct {
  int64_t first, newest; /* of the slot's entries */
  const float* slopes;
} Distance;

/* scores -= slope * distance for the entries from `at` on, which go round the slot. */
static inline __m512 farther(const Attention* a, const Distance* d, int g, int64_t at,
                             __m512 scores) {
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i back = _mm512_sub_epi32(_mm512_set1_epi32((int)(d->newest - at)), lanes);
  const __mmask16 older = _mm512_movepi32_mask(back); /* behind the newest in memory */
  const __m512i round = _mm512_set1_epi32((int)a->length);
  const __m512 distance = _mm512_cvtepi32_ps(_mm512_mask_add_epi32(back, older, back, round));
  return _mm512_fnmadd_ps(_mm512_set1_ps(d->slopes[g]), distance, scores);
}

/* scores[g][s] = q[g] . keys[s] (* scale[s]) (- slope * distance); -inf behind the last position. */
static void score(const Attention* a, const Distance* d, int64_t at, int64_t positions, int count,
                  const float* q, float scores[GROUP][BLOCK]) {
  __m512 products[GROUP][BLOCK];
  memset(products, 0, (size_t)count * sizeof(products[0]));
  for (int64_t h = 0, wide; h < a->head; h += wide ? WIDTH * LANES : LANES) {
    wide = a->head - h >= WIDTH * LANES;
    const int64_t from = at * a->head + h;
    const Part part = {a->k, entry(a, a->v, from), from, positions, a->head};
    dots[count][wide][a->k_scale != NULL](part, q + h, products);
  }
  for (int g = 0; g < count; g++)
    for (int64_t s = 0; s < BLOCK; s += LANES) {
      const __mmask16 live = positions > s ? first_lanes(positions - s) : 0;
      __m512 sums = sums_of(products[g] + s);
      if (a->k_scale != NULL)
        sums = _mm512_mul_ps(sums, _mm512_maskz_loadu_ps(live, a->k_scale + at + s));
      if (d->slopes != NULL) sums = farther(a, d, g, at + s, sums);
      sums = _mm512_mask_mov_ps(_mm512_set1_ps(-INFINITY), live, sums);
      _mm512_store_ps(scores[g] + s, sums);
    }
}

static float largest_of(const float scores[BLOCK]) {
  __m512 largest = _mm512_load_ps(scores);
  for (int64_t s = LANES; s < BLOCK; s += LANES)
    largest = _mm512_max_ps(largest, _mm512_load_ps(scores + s));
  return _mm512_reduce_max_ps(largest);
}

/* Scores to exp(score - peak), times scale[s] if there is one; returns their sum without it. */
static float weigh(float scores[BLOCK], const float* scale, int64_t positions, float peak) {
  __m512 sum = _mm512_setzero_ps();
  for (int64_t s = 0; s < BLOCK; s += LANES) {
    const __mmask16 live = positions > s ? first_lanes(positions - s) : 0;
    __m512 weight = exponential(_mm512_sub_ps(_mm512_load_ps(scores + s), _mm512_set1_ps(peak)));
    weight = _mm512_maskz_mov_ps(live, weight);
    sum = _mm512_add_ps(sum, weight);
    if (scale != NULL) weight = _mm512_mul_ps(weight, _mm512_maskz_loadu_ps(live, scale + s));
    _mm512_store_ps(scores + s, weight);
  }
  return _mm512_reduce_add_ps(sum);
}

/* Up to GROUP queries of one head of one slot over its first `live` entries. */
static void attend(const Attention* a, const Distance* d, const float* q, int64_t live, int count,
                   float* out) {
  _Alignas(LINE) float scores[GROUP][BLOCK];
  float peak[GROUP], total[GROUP] = {0};
  for (int g = 0; g < count; g++) peak[g] = -INFINITY;
  memset(out, 0, (size_t)(count * a->head) * sizeof(float));
  const int64_t end = d->first + live;
  for (int64_t at = d->first, positions; at < end; at += positions) {
    positions = least(end - at, BLOCK);
    score(a, d, at, positions, count, q, scores);
    for (int g = 0; g < count; g++) {
      const float before = peak[g], largest = largest_of(scores[g]);
      if (largest > before) {
        const float factor = _mm512_cvtss_f32(exponential(_mm512_set1_ps(before - largest)));
        scale_by(out + g * a->head, a->head, factor); /* by 0 at first */
        total[g] *= factor;
        peak[g] = largest;
      }
      total[g] += weigh(scores[g], a->v_scale == NULL ? NULL : a->v_scale + at, positions, peak[g]);
    }
    for (int64_t h = 0, wide; h < a->head; h += wide ? WIDTH * LANES : LANES) {
      wide = a->head - h >= WIDTH * LANES;
      const int64_t from = at * a->head + h;
      /* After the last block this thread goes on with the head behind this one. */
      const int64_t next = at + positions < end ? at + positions : d->first + a->length;
      const Part part = {a->v, entry(a, a->k, next * a->head + h), from, positions, a->head};
      mixes[count][wide][a->v_scale != NULL](part, (const float(*)[BLOCK])scores, out + h);
    }
  }
  for (int g = 0; g < count; g++) scale_by(out + g * a->head, a->head, 1.0f / total[g]);
}

/* Fetches where the token of an item is going to be written: four places that wait for memory. */
static void expect(const Attention* a, int64_t item) {
  const int64_t n = item / a->heads, head = item % a->heads;
  if (n >= a->rows || tokens_of(a, n) == 0) return;
  const int64_t at = entry_of(a, n, head) + a->starts[n] % a->length;
  const char *k = entry(a, a->k, at * a->head), *v = entry(a, a->v, at * a->head);
  for (int64_t i = 0; i < a->head * (a->k_scale == NULL ? 4 : 1); i += LINE) {
    __builtin_prefetch(k + i, 1);
    __builtin_prefetch(v + i, 1);
  }
  if (a->k_scale == NULL) return;
  __builtin_prefetch(a->k_scale + at, 1);
  __builtin_prefetch(a->v_scale + at, 1);
}

static void attend_token(const void* data, int64_t item) {
  const Attention* a = data;
  expect(a, item + 1);
  const int64_t n = item / a->heads, head = item % a->heads, start = a->starts[n];
  float* out = a->out + item * a->group * a->head;
  if (tokens_of(a, n) == 0) {
    memset(out, 0, (size_t)(a->group * a->head) * sizeof(float));
    return;
  }
  put_token(a, n, 0, head);
  const float* fresh = vectors_of(a, n, 0, head);
  for (int64_t g = 0; g < a->group; g += GROUP) {
    float q[GROUP * MAX_HEAD];
    const int count = (int)least(a->group - g, GROUP);
    for (int i = 0; i < count; i++)
      turn(a, n, 0, fresh + (g + i) * a->head, a->scale, q + i * a->head);
    const int64_t first = entry_of(a, n, head);
    const float* slopes = a->slopes == NULL ? NULL : a->slopes + head * a->group + g;
    const Distance distance = {first, first + start % a->length, slopes};
    attend(a, &distance, q, least(start + 1, a->length), count, out + g * a->head);
  }
}

/* ---- XLA ---- */

/* Whether the arrays are what `Attention` says, and those of the cache the same in and out. */
static int fit_together(XLA_FFI_Buffer** args, XLA_FFI_Buffer** rets, int64_t arrays) {
  const XLA_FFI_DataType stored = arrays == 4 ? XLA_FFI_DataType_S8 : XLA_FFI_DataType_F32;
  const XLA_FFI_Buffer *qkv = args[0], *k = args[6];
  if (!is_array(qkv, XLA_FFI_DataType_F32, 5) || !is_array(k, stored, 4) ||
      !is_array(args[7], stored, 4))
    return 0;
  for (int i = 1; i < 3; i++)
    if (!is_array(args[i], XLA_FFI_DataType_F32, 3) || memcmp(args[i]->dims, qkv->dims, 16) ||
        2 * args[i]->dims[2] != qkv->dims[4])
      return 0;
  for (int i = 3; i < 6; i++)
    if (!is_array(args[i], XLA_FFI_DataType_S32, 1) || args[i]->dims[0] != qkv->dims[0]) return 0;
  for (int64_t i = 0; i < arrays; i++)
    if (args[6 + i]->data != rets[1 + i]->data || memcmp(args[6 + i]->dims, k->dims, 24)) return 0;
  for (int64_t i = 2; i < arrays; i++)
    if (!is_array(args[6 + i], XLA_FFI_DataType_F32, 3)) return 0;
  const int64_t head = k->dims[3];
  return args[7]->dims[3] == head && qkv->dims[4] == head && qkv->dims[2] == k->dims[1] &&
         qkv->dims[3] > 2 && head % LANES == 0 && head <= MAX_HEAD && qkv->dims[1] <= k->dims[2];
}

XLA_FFI_Error* loadstone_attention(XLA_FFI_CallFrame* frame) {
  if (!executes(frame)) return NULL;
  XLA_FFI_Buffer** args = (XLA_FFI_Buffer**)frame->args.args;
  XLA_FFI_Buffer** rets = (XLA_FFI_Buffer**)frame->rets.rets;
  const int64_t arrays = frame->args.size - 6;
  if ((arrays != 2 && arrays != 4) || frame->rets.size < arrays + 1)
    return fail(frame, "CPU attention takes 8 arrays, 10 for int8, and gives out and the cache");
  if (!fit_together(args, rets, arrays))
    return fail(frame, "CPU attention: the arrays do not fit together");
  const XLA_FFI_Buffer *qkv = args[0], *k = args[6];
  const Attention a = {.qkv = qkv->data, .cos = args[1]->data, .sin = args[2]->data,
                       .starts = args[3]->data, .lengths = args[4]->data, .slots = args[5]->data,
                       .k = k->data, .v = args[7]->data,
                       .k_scale = arrays == 4 ? args[8]->data : NULL,
                       .v_scale = arrays == 4 ? args[9]->data : NULL,
                       .out = rets[0]->data, .scale = attribute(frame, "scale"),
                       .slopes = attributes(frame, "slopes", qkv->dims[2] * (qkv->dims[3] - 2)),
                       .rows = qkv->dims[0], .tokens = qkv->dims[1], .heads = qkv->dims[2],
                       .group = qkv->dims[3] - 2, .head = qkv->dims[4],
                       .slot_count = k->dims[0], .length = k->dims[2]};
  if (a.slopes == NULL && frame->attrs.size > 1)
    return fail(frame, "CPU attention: slopes are one float32 for each query head");
  if (a.rows * a.tokens == 0) return NULL;
  if (a.tokens > 1) {
    const XLA_FFI_Buffer* scratch = frame->rets.size == arrays + 2 ? rets[arrays + 1] : NULL;
    if (!is_array(scratch, XLA_FFI_DataType_F32, 1) || scratch->dims[0] != laid_floats(&a))
      return fail(frame, "CPU attention: the scratch memory is of another size");
    return prefill_attention(frame, &a, scratch->data);
  }
  const Task task = {NULL, attend_token, 0, a.rows * a.heads};
  return run_task(frame, task, &a, sizeof(a));
}
