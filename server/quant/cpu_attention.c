/* Attention of one query per slot to the cache, for x86 CPUs with AVX-512, called by XLA's FFI.
 *
 *   loadstone_decode_attention  out[B,N,H] = softmax(q[B,N,H] . k[B,K,S,H]) @ v[B,K,S,H]
 *
 * N = K * G: G queries share a head of keys and values. Slot b has min(count[b], S) live positions
 * from 0 on; no other is read, and a slot with none gives zeros. q comes with its scale already on
 * it. k and v are float32, or int8 with a float32 scale per position, ks and vs [B,K,S]: that of a
 * key goes on the score, that of a value on the probability. All arithmetic is float32.
 *
 * A work item is one head of one slot. It goes through BLOCK positions at a time with a running
 * maximum, as flash attention does, so that scores stay in L1 and the cache is read once.
 */
#include <math.h>

#include "cpu_threads.h"

#define LANES 16
#define BLOCK 64     /* positions at a time */
#define GROUP 4      /* queries whose sums are held in registers together */
#define WIDTH 4      /* registers of a head that are summed together: 64 values */
#define MAX_HEAD 256

#define UNROLL _Pragma("GCC unroll 16")

typedef struct {
  const float *q, *k_scale, *v_scale; /* scales are NULL for float32 */
  const void *k, *v;
  const int32_t* count;
  float* out;
  int64_t heads, group, length, head; /* K, G, S, H */
} Attention;

/* exp(x) to 2e-7 relative, for x <= 0; NaN stays NaN. Cephes' polynomial for |r| <= ln(2) / 2. */
static inline __m512 exponential(__m512 x) {
  const __m512 log2e = _mm512_set1_ps(1.44269504f);
  __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, log2e), _MM_FROUND_TO_NEAREST_INT);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
  const float terms[] = {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f,
                         1.6666665459e-1f, 5.0000001201e-1f, 1.0f, 1.0f};
  __m512 y = _mm512_set1_ps(1.9875691500e-4f);
  UNROLL for (int i = 0; i < 7; i++) y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(terms[i]));
  return _mm512_scalef_ps(y, n);
}

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

static inline __mmask16 first_lanes(int64_t count) {
  return count >= LANES ? (__mmask16)0xffff : (__mmask16)((1u << count) - 1);
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
  const void *cache, *ahead;   /* ahead: where to fetch the same part for later; NULL for nowhere */
  int64_t at, positions, head; /* at: of the first entry's part */
} Part;

static inline __attribute__((always_inline)) void fetch(const Part* p, int64_t from,
                                                        const int width, const int coded) {
  if (p->ahead == NULL) return;
  const int size = coded ? 1 : 4;
  UNROLL for (int i = 0; i < width * LANES * size; i += LINE)
    _mm_prefetch((const char*)p->ahead + from * size + i, _MM_HINT_T1);
}

/* products[g][s] += q[g] * keys[s], lane by lane. In these two, count, width and coded are
 * constants wherever they are inlined, so that queries or sums stay in registers. */
static inline __attribute__((always_inline)) void dot(Part p, const float* q,
                                                      __m512 (*products)[BLOCK], const int count,
                                                      const int width, const int coded) {
  __m512 queries[GROUP][WIDTH];
  UNROLL for (int g = 0; g < count; g++)
    UNROLL for (int i = 0; i < width; i++)
      queries[g][i] = _mm512_loadu_ps(q + g * p.head + i * LANES);
  for (int64_t s = 0; s < p.positions; s++, p.at += p.head) {
    __m512 key[WIDTH];
    fetch(&p, s * p.head, width, coded);
    UNROLL for (int i = 0; i < width; i++) key[i] = load(p.cache, p.at + i * LANES, coded);
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
  __m512 sums[GROUP][WIDTH];
  UNROLL for (int g = 0; g < count; g++)
    UNROLL for (int i = 0; i < width; i++)
      sums[g][i] = _mm512_loadu_ps(out + g * p.head + i * LANES);
  for (int64_t s = 0; s < p.positions; s++, p.at += p.head) {
    __m512 value[WIDTH];
    fetch(&p, s * p.head, width, coded);
    UNROLL for (int i = 0; i < width; i++) value[i] = load(p.cache, p.at + i * LANES, coded);
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

/* scores[g][s] = q[g] . keys[s] (* scale[s]); -inf behind the last position. */
static void score(const Attention* a, int64_t at, int64_t positions, int count, const float* q,
                  float scores[GROUP][BLOCK]) {
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

static void scale_by(float* x, int64_t count, float factor) {
  for (int64_t i = 0; i < count; i++) x[i] *= factor;
}

/* Up to GROUP queries of one head of one slot over `live` positions from `at` on. */
static void attend(const Attention* a, const float* q, int64_t at, int64_t live, int count,
                   float* out) {
  _Alignas(LINE) float scores[GROUP][BLOCK];
  float peak[GROUP], total[GROUP] = {0};
  for (int g = 0; g < count; g++) peak[g] = -INFINITY;
  memset(out, 0, (size_t)(count * a->head) * sizeof(float));
  for (int64_t end = at + live, positions; at < end; at += positions) {
    positions = least(end - at, BLOCK);
    score(a, at, positions, count, q, scores);
    for (int g = 0; g < count; g++) {
      const float before = peak[g], largest = largest_of(scores[g]);
      if (largest > before) {
        const float factor = _mm512_cvtss_f32(exponential(_mm512_set1_ps(before - largest)));
        if (before > -INFINITY) scale_by(out + g * a->head, a->head, factor);
        total[g] = before > -INFINITY ? total[g] * factor : 0.0f;
        peak[g] = largest;
      }
      total[g] += weigh(scores[g], a->v_scale == NULL ? NULL : a->v_scale + at, positions, peak[g]);
    }
    for (int64_t h = 0, wide; h < a->head; h += wide ? WIDTH * LANES : LANES) {
      wide = a->head - h >= WIDTH * LANES;
      const int64_t from = at * a->head + h, next = from + positions * a->head;
      const void* ahead = at + positions < end ? entry(a, a->k, next) : NULL;
      const Part part = {a->v, ahead, from, positions, a->head};
      mixes[count][wide][a->v_scale != NULL](part, (const float(*)[BLOCK])scores, out + h);
    }
  }
  for (int g = 0; g < count; g++) scale_by(out + g * a->head, a->head, 1.0f / total[g]);
}

static void attend_item(const void* data, int64_t item) {
  const Attention* a = data;
  const int64_t live = least(a->count[item / a->heads], a->length);
  const int64_t first = item * a->group * a->head;
  if (live <= 0) {
    memset(a->out + first, 0, (size_t)(a->group * a->head) * sizeof(float));
    return;
  }
  for (int64_t g = 0; g < a->group; g += GROUP) {
    const int64_t from = first + g * a->head;
    attend(a, a->q + from, item * a->length, live, (int)least(a->group - g, GROUP), a->out + from);
  }
}

/* Arguments q, k, v, count and for int8 ks, vs. */
XLA_FFI_Error* loadstone_decode_attention(XLA_FFI_CallFrame* frame) {
  if (!executes(frame)) return NULL;
  if ((frame->args.size != 4 && frame->args.size != 6) || frame->rets.size != 1)
    return fail(frame, "CPU attention takes q, k, v, count and for int8 ks, vs, and gives out");
  XLA_FFI_Buffer** args = (XLA_FFI_Buffer**)frame->args.args;
  const XLA_FFI_Buffer *q = args[0], *k = args[1], *v = args[2], *count = args[3];
  const XLA_FFI_Buffer* out = frame->rets.rets[0];
  const int codes = frame->args.size == 6;
  const XLA_FFI_DataType stored = codes ? XLA_FFI_DataType_S8 : XLA_FFI_DataType_F32;
  if (q->dtype != XLA_FFI_DataType_F32 || k->dtype != stored || v->dtype != stored ||
      count->dtype != XLA_FFI_DataType_S32 || q->rank != 3 || k->rank != 4 || v->rank != 4 ||
      memcmp(k->dims, v->dims, 4 * sizeof(int64_t)) || q->dims[0] != k->dims[0] ||
      count->dims[0] != k->dims[0] || q->dims[2] != k->dims[3] || q->dims[1] % k->dims[1] ||
      q->dims[2] % LANES || q->dims[2] > MAX_HEAD)
    return fail(frame, "CPU attention: q, k, v and count do not fit together");
  const Attention a = {.q = q->data, .k = k->data, .v = v->data, .count = count->data,
                       .k_scale = codes ? args[4]->data : NULL,
                       .v_scale = codes ? args[5]->data : NULL, .out = out->data,
                       .heads = k->dims[1], .group = q->dims[1] / k->dims[1],
                       .length = k->dims[2], .head = k->dims[3]};
  const Task task = {NULL, attend_item, 0, k->dims[0] * k->dims[1]};
  if (task.items == 0) return NULL;
  Job* job = new_job(task, count_threads(frame), sizeof(a));
  if (job == NULL) return fail(frame, "CPU attention: out of host memory");
  memcpy(job->data, &a, sizeof(a));
  run(frame, job);
  return NULL;
}
