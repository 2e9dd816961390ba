/* Attention of rows of several tokens: the part of loadstone_attention for reading prompts.
 *
 * First the chunk's own keys and values are laid out for the products, as the cache will give them
 * back (int8 is rounded first): a *block* is BLOCK positions, keys as [head][BLOCK], values as
 * [BLOCK][head]. Then a work item is one head of one row and ROWS of its queries: the old positions
 * of its window, block by block out of the cache, then the chunk's blocks up to the last query,
 * with a running maximum. Last, keys and values are written, when nobody reads the cache any more.
 */
#include "cpu_cache.h"

#define BLOCK 64
#define ROWS 48  /* queries of an item: those of a token side by side, then the next token */
#define TILE 6   /* rows whose sums are held in registers together, with WIDTH registers each */
#define WIDTH 4
#define FLOOR -1e30f /* below every score, and finite: what is hidden weighs nothing */

typedef struct {
  Attention a;
  int64_t blocks, parts; /* of a row: blocks of its chunk, items of its queries */
  float* laid;           /* [rows, heads, blocks]: keys, then values */
} Prefill;

typedef struct {
  float *keys, *values; /* [head][BLOCK], [BLOCK][head] */
} Block;

static Block block_of(const Prefill* p, int64_t n, int64_t head, int64_t block) {
  const int64_t size = BLOCK * p->a.head;
  float* keys = p->laid + ((n * p->a.heads + head) * p->blocks + block) * 2 * size;
  return (Block){keys, keys + size};
}

static void lay(const Attention* a, Block to, int64_t at, const float* key) {
  for (int64_t i = 0; i < a->head; i++) to.keys[i * BLOCK + at] = key[i];
}

static void lay_nothing(const Attention* a, Block to, int64_t from) {
  static const float zeros[MAX_HEAD];
  for (int64_t at = from; at < BLOCK; at++) lay(a, to, at, zeros);
  memset(to.values + from * a->head, 0, (size_t)((BLOCK - from) * a->head) * sizeof(float));
}

/* What the cache will give back for x. */
static void as_kept(const Attention* a, const float* x, float* out) {
  int8_t codes[MAX_HEAD];
  if (a->k_scale == NULL) memcpy(out, x, (size_t)a->head * sizeof(float));
  else decode(codes, encode(x, a->head, codes), a->head, out);
}

static void lay_chunk(const void* data, int64_t index, Self* self) {
  (void)self;
  const Prefill* p = data;
  const Attention* a = &p->a;
  const int64_t block = index % p->blocks, head = index / p->blocks % a->heads;
  const int64_t n = index / p->blocks / a->heads, first = block * BLOCK;
  const int64_t count = least(tokens_of(a, n) - first, BLOCK);
  if (count <= 0) return;
  const Block to = block_of(p, n, head, block);
  for (int64_t at = 0; at < count; at++) {
    float turned[MAX_HEAD], key[MAX_HEAD];
    const float* fresh = vectors_of(a, n, first + at, head) + a->group * a->head;
    turn(a, n, first + at, fresh, 1.0f, turned);
    as_kept(a, turned, key);
    lay(a, to, at, key);
    as_kept(a, fresh + a->head, to.values + at * a->head);
  }
  lay_nothing(a, to, count);
}

/* `count` entries of the cache from `entry` on. */
static void lay_old(const Attention* a, Block to, int64_t entry, int64_t count) {
  for (int64_t at = 0; at < count; at++, entry++) {
    float key[MAX_HEAD];
    const int64_t first = entry * a->head, bytes = a->head * (int64_t)sizeof(float);
    if (a->k_scale == NULL) {
      memcpy(key, (float*)a->k + first, (size_t)bytes);
      memcpy(to.values + at * a->head, (float*)a->v + first, (size_t)bytes);
    } else {
      decode((int8_t*)a->k + first, a->k_scale[entry], a->head, key);
      decode((int8_t*)a->v + first, a->v_scale[entry], a->head, to.values + at * a->head);
    }
    lay(a, to, at, key);
  }
  lay_nothing(a, to, count);
}

/* out[rows][..] += x[rows][depth] @ y[depth][..], `width` registers wide. */
typedef struct {
  const float *x, *y;
  float* out;
  int64_t x_stride, y_stride, out_stride, depth;
} Matrices;

/* rows and width are constants wherever this is inlined, so that the sums stay in registers. */
static inline __attribute__((always_inline)) void multiply(Matrices m, const int rows,
                                                           const int width) {
  __m512 sums[TILE][WIDTH];
  UNROLL for (int r = 0; r < rows; r++)
    UNROLL for (int i = 0; i < width; i++)
      sums[r][i] = _mm512_loadu_ps(m.out + r * m.out_stride + i * LANES);
  for (int64_t d = 0; d < m.depth; d++) {
    __m512 y[WIDTH];
    UNROLL for (int i = 0; i < width; i++) y[i] = _mm512_loadu_ps(m.y + i * LANES);
    m.y += m.y_stride;
    UNROLL for (int r = 0; r < rows; r++) {
      const __m512 x = _mm512_set1_ps(m.x[r * m.x_stride + d]);
      UNROLL for (int i = 0; i < width; i++) sums[r][i] = _mm512_fmadd_ps(x, y[i], sums[r][i]);
    }
  }
  UNROLL for (int r = 0; r < rows; r++)
    UNROLL for (int i = 0; i < width; i++)
      _mm512_storeu_ps(m.out + r * m.out_stride + i * LANES, sums[r][i]);
}

/* A function for each size: in one function gcc 12 keeps such arrays in memory. */
#define SIZE(rows, width)                                                             \
  static __attribute__((noinline)) void multiply_##rows##_##width(Matrices m) {       \
    multiply(m, rows, width);                                                         \
  }
#define SIZES(rows) SIZE(rows, 1) SIZE(rows, 4)
SIZES(1) SIZES(2) SIZES(3) SIZES(4) SIZES(5) SIZES(6)

#define ENTRY(rows) [rows] = {multiply_##rows##_1, multiply_##rows##_4}
static void (*const multiplies[TILE + 1][2])(Matrices) = {
    ENTRY(1), ENTRY(2), ENTRY(3), ENTRY(4), ENTRY(5), ENTRY(6)};

static void add_product(Matrices m, int64_t rows, int64_t columns) {
  for (int64_t r = 0, count; r < rows; r += count) {
    count = least(rows - r, TILE);
    for (int64_t c = 0, wide; c < columns; c += wide ? WIDTH * LANES : LANES) {
      wide = columns - c >= WIDTH * LANES;
      Matrices part = m;
      part.x += r * m.x_stride;
      part.y += c;
      part.out += r * m.out_stride + c;
      multiplies[count][wide](part);
    }
  }
}

/* Queries under way. */
typedef struct {
  _Alignas(LINE) float scores[ROWS][BLOCK];
  float q[ROWS * MAX_HEAD], out[ROWS * MAX_HEAD];
  float peak[ROWS], total[ROWS], slope[ROWS];
  int64_t first[ROWS], last[ROWS]; /* positions that each sees */
  int64_t count;
} Queries;

/* Bits from..to-1. */
static uint64_t bits(int64_t from, int64_t to) {
  from = from < 0 ? 0 : from;
  to = least(to, BLOCK);
  if (from >= to) return 0;
  return (~0ull >> (BLOCK - to)) & (~0ull << from);
}

/* Scores of row r less slope * distance, to a block whose first position lies `back` behind. */
static void lower(Queries* s, int64_t r, int64_t back) {
  const __m512 slope = _mm512_set1_ps(s->slope[r]);
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  for (int i = 0; i < BLOCK; i += LANES) {
    const __m512i distance = _mm512_sub_epi32(_mm512_set1_epi32((int)back - i), lanes);
    const __m512 x = _mm512_load_ps(s->scores[r] + i);
    _mm512_store_ps(s->scores[r] + i, _mm512_fnmadd_ps(slope, _mm512_cvtepi32_ps(distance), x));
  }
}

/* Scores of row r to weights, which only the positions in `seen` have; keeps the running sums. */
static void weigh(Queries* s, int64_t r, uint64_t seen, int64_t head) {
  const __m512 hidden = _mm512_set1_ps(-INFINITY);
  float* scores = s->scores[r];
  __m512 largest = _mm512_set1_ps(FLOOR), sum = _mm512_setzero_ps();
  for (int i = 0; i < BLOCK; i += LANES) {
    const __m512 x = _mm512_mask_loadu_ps(hidden, (__mmask16)(seen >> i), scores + i);
    _mm512_store_ps(scores + i, x);
    largest = _mm512_max_ps(largest, x);
  }
  const float before = s->peak[r], peak = _mm512_reduce_max_ps(largest);
  if (peak > before) {
    const float factor = _mm512_cvtss_f32(exponential(_mm512_set1_ps(before - peak)));
    scale_by(s->out + r * head, head, factor);
    s->total[r] *= factor;
    s->peak[r] = peak;
  }
  for (int i = 0; i < BLOCK; i += LANES) {
    const __m512 x = _mm512_sub_ps(_mm512_load_ps(scores + i), _mm512_set1_ps(s->peak[r]));
    const __m512 weight = _mm512_maskz_mov_ps((__mmask16)(seen >> i), exponential(x));
    _mm512_store_ps(scores + i, weight);
    sum = _mm512_add_ps(sum, weight);
  }
  s->total[r] += _mm512_reduce_add_ps(sum);
}

/* Adds what the queries see of a block that begins at position `at` and holds `count`. */
static void see(Queries* s, Block block, int64_t at, int64_t count, int64_t head) {
  memset(s->scores, 0, (size_t)s->count * sizeof(s->scores[0]));
  const Matrices product = {s->q, block.keys, s->scores[0], head, BLOCK, BLOCK, head};
  add_product(product, s->count, BLOCK);
  for (int64_t r = 0; r < s->count; r++) {
    if (s->slope[r] != 0.0f) lower(s, r, s->last[r] - at);
    weigh(s, r, bits(s->first[r] - at, least(s->last[r] + 1 - at, count)), head);
  }
  const Matrices mix = {s->scores[0], block.values, s->out, BLOCK, head, head, count};
  add_product(mix, s->count, head);
}

static void attend_part(const void* data, int64_t item) {
  const Prefill* p = data;
  const Attention* a = &p->a;
  const int64_t from = item % p->parts * ROWS, head = item / p->parts % a->heads;
  const int64_t n = item / p->parts / a->heads, tokens = tokens_of(a, n);
  const int64_t start = a->starts == NULL ? 0 : a->starts[n];
  const int64_t live = least(tokens * a->group - from, ROWS);
  const int64_t all = least(a->tokens * a->group - from, ROWS);
  const size_t bytes = (size_t)a->head * sizeof(float);
  Queries s; /* not set: most of it is never used */
  s.count = live > 0 ? live : 0;
  memset(s.out, 0, (size_t)s.count * bytes);
  for (int64_t r = 0; r < s.count; r++) {
    const int64_t t = (from + r) / a->group, g = (from + r) % a->group;
    turn(a, n, t, vectors_of(a, n, t, head) + g * a->head, a->scale, s.q + r * a->head);
    s.peak[r] = FLOOR;
    s.total[r] = 0.0f;
    s.slope[r] = slope_of(a, head, g);
    s.last[r] = start + t;
    s.first[r] = start + t - a->length + 1;
  }
  if (s.count > 0) {
    float keys[BLOCK * MAX_HEAD], values[BLOCK * MAX_HEAD];
    const Block old = {keys, values};
    for (int64_t at = s.first[0] > 0 ? s.first[0] : 0, count; at < start; at += count) {
      const int64_t index = at % a->length;
      count = least(least(start - at, BLOCK), a->length - index);
      lay_old(a, old, entry_of(a, n, head) + index, count);
      see(&s, old, at, count, a->head);
    }
    const int64_t hidden = s.first[0] - start; /* tokens of the chunk that none of these sees */
    for (int64_t block = hidden > 0 ? hidden / BLOCK : 0; block * BLOCK <= s.last[s.count - 1] - start; block++)
      see(&s, block_of(p, n, head, block), start + block * BLOCK, BLOCK, a->head);
  }
  for (int64_t r = 0; r < all; r++) {
    const int64_t t = (from + r) / a->group, g = (from + r) % a->group;
    float* out = a->out + (((n * a->tokens + t) * a->heads + head) * a->group + g) * a->head;
    if (r < s.count) {
      scale_by(s.out + r * a->head, a->head, 1.0f / s.total[r]);
      memcpy(out, s.out + r * a->head, bytes);
    } else {
      memset(out, 0, bytes);
    }
  }
}

static void write_head(const void* data, int64_t item) {
  const Attention* a = data;
  const int64_t n = item / a->heads, head = item % a->heads, tokens = tokens_of(a, n);
  for (int64_t t = 0; t < tokens; t++) put_token(a, n, t, head);
}

static int64_t blocks_of(const Attention* a) { return (a->tokens + BLOCK - 1) / BLOCK; }

int64_t laid_floats(const Attention* a) {
  return a->rows * a->heads * blocks_of(a) * 2 * BLOCK * a->head;
}

XLA_FFI_Error* attend_rows(const XLA_FFI_CallFrame* frame, const Attention* a, float* laid) {
  const int64_t heads = a->rows * a->heads, parts = (a->tokens * a->group + ROWS - 1) / ROWS;
  const Prefill p = {*a, blocks_of(a), parts, laid};
  const Task task = {lay_chunk, attend_part, heads * p.blocks, heads * parts};
  return run_task(frame, task, &p, sizeof(p));
}

XLA_FFI_Error* prefill_attention(const XLA_FFI_CallFrame* frame, const Attention* a, float* laid) {
  XLA_FFI_Error* error = attend_rows(frame, a, laid);
  if (error != NULL) return error;
  return run_task(frame, (Task){NULL, write_head, 0, a->rows * a->heads}, a, sizeof(*a));
}
