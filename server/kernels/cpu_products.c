/* Weight products for x86 CPUs with AVX-512 VNNI, called by XLA through its FFI.
 *
 *   loadstone_int8_product     y[M,N] = x[M,K] @ w[N,K]^T * scale[N]  w int8, the rest float32
 *   loadstone_dynamic_product  the same with x in int8
 *   loadstone_f32_product      y[M,N] = x[M,K] @ w[N,K]^T             all float32
 *
 * Each gives scratch memory beside y, in which it keeps x as it is multiplied: so XLA counts it.
 *
 * These and those of `cpu_codes.c` and `cpu_bf16.c` are one loop. A weight is a sequence of 64-byte
 * lines: a line holds one *step* of a *block* of 16 outputs, as one instruction wants it. A step is
 * four inputs as uint8 (w + 128) for vpdpbusd or one input as float32 for an FMA: w is
 * [N/16, steps, 16, 4] uint8 or [N/16, steps, 16] float32 (`cpu_bf16.c`: two as bfloat16). The other
 * operand is a *unit* of four bytes, spread over the register: four int8 or one float32.
 *
 * For int8 each row of x becomes one or two rows of units, x = s * (hi + lo / 254), s = max|x| / 127:
 * with both about 15 bits of the activation survive. The excess of 128 * sum(units) is taken off at
 * the end.
 *
 * Up to TILE_ROWS rows of units form a *tile*; they are stored as [tile][step][row] so that one
 * pointer walks through them. Tiles times blocks run as TILE_ROWS x TILE_BLOCKS sums in registers.
 * Rows of x that are zero throughout, as of idle slots and padding, are in no tile.
 */
#include "cpu_products.h"

#define PART_TILES 32     /* tiles that one work item goes through, so that its units stay in L2 */
#define CHUNK_STEPS 1024  /* steps at a time: 192 KiB of lines, which L2 holds twice */
#define DECODED_LINES 128 /* the same for lines made of codes: 24 KiB, which L1 holds */
#define FETCH_BYTES 65536 /* at most so many of the first lines are fetched while x is prepared */
#define LOW_STEP 254.0f

/* Whether lines come from memory as they are used. */
static int streams(const Product* p) {
  return p->kind == INT8 || p->kind == F32 || p->kind == BF16;
}

/* ---- x to units ---- */

/* What `prepare_tile` fetches meanwhile: the first lines of the item the thread begins with. */
static void aim(const Product* p, Self* self) {
  const int64_t block = self->first_item % p->columns * p->item_blocks, stride = p->steps * LINE;
  self->fetch = (const char*)p->w + block * stride;
  self->fetch_end = self->fetch + least(stride * p->item_blocks, FETCH_BYTES);
  if (!streams(p)) self->fetch_end = self->fetch; /* codes are few */
}

static inline __m512i round_even(__m512 x) {
  return _mm512_cvt_roundps_epi32(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* The sums of units in a group of inputs that ends here, times what unsigned weights have too much:
 * 8 for int4 and 128 for others. The low sum of nf4 holds products of the high units, too. */
static inline void note_excess(const Product* p, int64_t row, int64_t group, __m512i* high,
                               __m512i* low, int terms) {
  const int32_t offset = p->kind == INT4 ? -8 : -128;
  int32_t* excess = p->excess + row * p->groups + group;
  *excess = offset * _mm512_reduce_add_epi32(*high);
  if (terms == 2) {
    excess[p->groups] = offset * _mm512_reduce_add_epi32(*low);
    if (p->kind == NF4) excess[p->groups] += *excess;
  }
  *high = *low = _mm512_setzero_si512();
}

/* Row `token` of those in tiles to `terms` rows of units, `width` units apart from step to step. */
static inline __attribute__((always_inline)) void quantize_token(const Product* p, int64_t token,
                                                                 int32_t* units, int64_t width,
                                                                 Self* self, const int terms) {
  const float* x = p->x + p->order[token] * p->inputs;
  const __mmask16* masks = p->outliers == NULL ? NULL : p->outliers->masks;
  float largest = masks == NULL ? largest_magnitude(x, p->inputs)
                                : largest_below(x, p->inputs, p->outliers->threshold);
  float floored = largest > LARGEST_FLOOR ? largest : LARGEST_FLOOR;
  const __m512 inverse = _mm512_set1_ps(127.0f / floored);
  const int64_t row = token * terms, group = p->codes == NULL ? p->inputs : p->codes->block;
  __m512i sum_high = _mm512_setzero_si512(), sum_low = _mm512_setzero_si512();
  for (int64_t k = 0; k < p->inputs; k += LANES) {
    __mmask16 live = first_lanes(p->inputs - k);
    if (masks != NULL) live &= (__mmask16)~masks[k / LANES];
    __m512 scaled = _mm512_mul_ps(_mm512_maskz_loadu_ps(live, x + k), inverse);
    __m512i high = round_even(scaled);
    sum_high = _mm512_add_epi32(sum_high, high);
    __m128i highs = _mm512_cvtepi32_epi8(high);
    if (terms == 2) {
      __m512 rest = _mm512_sub_ps(scaled, _mm512_cvtepi32_ps(high));
      __m512i low = round_even(_mm512_mul_ps(rest, _mm512_set1_ps(LOW_STEP)));
      sum_low = _mm512_add_epi32(sum_low, low);
      __m128i lows = _mm512_cvtepi32_epi8(low);
      __m128i pairs[2] = {_mm_unpacklo_epi32(highs, lows), _mm_unpackhi_epi32(highs, lows)};
      for (int64_t s = 0; s < 4 && k + 4 * s < p->inputs; s++, units += width)
        memcpy(units, (const int64_t*)pairs + s, sizeof(int64_t));
    } else {
      for (int64_t s = 0; s < 4 && k + 4 * s < p->inputs; s++, units += width)
        memcpy(units, (const int32_t*)&highs + s, sizeof(int32_t));
    }
    if (k + LANES >= p->inputs || (p->groups > 1 && (k + LANES) % group == 0))
      note_excess(p, row, k / group, &sum_high, &sum_low, terms);
    fetch_line(self);
  }
  int finite = largest <= 3.402823466e38f;
  float step = finite ? largest / 127.0f : __builtin_nanf("");
  p->step[row] = step;
  if (terms == 2) p->step[row + 1] = step / LOW_STEP;
}

static int64_t rows_of(const Product* p, int64_t tile) {
  return least(p->rows - tile * TILE_ROWS, TILE_ROWS);
}

static void prepare_tile(const void* data, int64_t tile, Self* self) {
  const Product* p = data;
  if (self->fetch == NULL) aim(p, self);
  int64_t width = rows_of(p, tile), row = tile * TILE_ROWS;
  int32_t* units = p->units + row * p->steps;
  if (p->kind == BF16) {
    prepare_bf16(p, row, width, units, self);
    return;
  }
  if (p->kind != F32 && p->kind != FP8) {
    for (int64_t r = 0; r < width; r += p->terms)
      if (p->terms == 2) quantize_token(p, (row + r) / 2, units + r, width, self, 2);
      else quantize_token(p, row + r, units + r, width, self, 1);
    return;
  }
  const int32_t* x[TILE_ROWS];
  for (int64_t r = 0; r < width; r++) x[r] = (const int32_t*)p->x + p->order[row + r] * p->inputs;
  for (int64_t k = 0; k < p->inputs; k++, fetch_line(self))
    for (int64_t r = 0; r < width; r++) units[k * width + r] = x[r][k];
}

/* ---- the product ---- */

static inline __m512 value_of(const Product* p, __m512i sum, int64_t row) {
  if (p->kind != INT8) return _mm512_castsi512_ps(sum);
  return _mm512_cvtepi32_ps(_mm512_add_epi32(sum, _mm512_set1_epi32(p->excess[row])));
}

/* Sums of a tile to rows of y. */
static void finish(const Product* p, const __m512i* sums, int64_t row, int64_t block, int rows,
                   int blocks) {
  const int tokens = rows / p->terms;
  const int64_t token = row / p->terms;
  for (int b = 0; b < blocks; b++, sums++) {
    __m512 values[TILE_ROWS];
    for (int t = 0; t < tokens; t++) {
      const int64_t at = row + t * p->terms;
      const __m512i* own = sums + t * p->terms * TILE_BLOCKS;
      values[t] = value_of(p, own[0], at);
      if (p->kind == F32 || p->kind == BF16 || p->kind == FP8) continue;
      const __m512 step = _mm512_set1_ps(p->step[at]);
      if (p->terms == 1) {
        values[t] = _mm512_mul_ps(values[t], step);
        continue;
      }
      const __m512 low = value_of(p, own[TILE_BLOCKS], at + 1);
      const __m512 rest = _mm512_mul_ps(low, _mm512_set1_ps(p->step[at + 1]));
      values[t] = _mm512_fmadd_ps(values[t], step, rest);
    }
    if (p->outliers != NULL) add_outliers(p, token, tokens, block + b, values);
    __m512 scale = _mm512_set1_ps(p->factor);
    if (p->scale != NULL)
      scale = _mm512_mul_ps(scale, _mm512_loadu_ps(p->scale + (block + b) * LANES));
    const int64_t first = (block + b) * LANES;
    const __mmask16 live = first_lanes(p->outputs - first);
    for (int t = 0; t < tokens; t++) {
      float* y = p->y + p->order[token + t] * p->outputs + first;
      _mm512_mask_storeu_ps(y, live, _mm512_mul_ps(values[t], scale));
    }
  }
}

/* Some steps of a few blocks, for all tiles of an item. */
typedef struct {
  int64_t block, step, steps;
  int blocks;
  const uint8_t* lines;
  int64_t stride; /* of `lines` */
  const uint8_t* ahead;
  int64_t every; /* these two as in Tile */
} Chunk;

/* What codes become. */
typedef struct {
  _Alignas(LINE) uint8_t lines[TILE_BLOCKS * DECODED_LINES * LINE];
  __m512 scales[CHUNK_GROUPS * TILE_BLOCKS];
} Decoded;

static void decode_chunk(const Product* p, const Chunk* c, Decoded* decoded) {
  const int64_t group = 4 * c->step / p->codes->block, end = 4 * (c->step + c->steps);
  for (int b = 0; b < c->blocks; b++) {
    decode(p, c->block + b, c->step, c->steps, decoded->lines + b * c->stride);
    for (int64_t g = 0; (group + g) * p->codes->block < end; g++)
      decoded->scales[g * TILE_BLOCKS + b] = scales_of(p, c->block + b, group + g);
  }
}

/* The groups of inputs in a chunk, each with sums of its own. */
static void add_groups(const Product* p, const Chunk* c, const Decoded* decoded, Tile t,
                       int64_t row, int rows) {
  const int64_t steps = p->codes->block / 4, bytes = p->kind == NF4 ? 2 * LINE : LINE;
  const AddTile add_group = add_tile[p->kind][rows][c->blocks];
  t.excess = p->excess + row * p->groups + c->step / steps;
  t.excess_stride = p->groups;
  t.scales = decoded->scales;
  for (int64_t left = c->steps; left > 0; left -= steps) {
    t.steps = least(left, steps);
    add_group(&t);
    t.fresh = 0;
    t.units += steps * rows;
    t.lines += steps * bytes;
    t.scales += TILE_BLOCKS;
    t.excess++;
  }
}

/* The chunk for one tile. The first tile of fp8 leaves its lines as float32 to those after it. */
static void add_chunk(const Product* p, const Chunk* c, Decoded* decoded, int64_t tile,
                      __m512i* sums, int more) {
  const int rows = (int)rows_of(p, tile);
  const int64_t row = tile * TILE_ROWS;
  Tile t = {.units = p->units + row * p->steps + c->step * rows, .lines = c->lines,
            .stride = c->stride, .steps = c->steps, .fresh = c->step == 0, .sums = sums,
            .ahead = c->ahead, .every = c->every};
  if (p->kind == FP8 && more) {
    t.store = (float*)decoded->lines;
    t.stored = DECODED_LINES * LANES;
  }
  if (p->codes != NULL) add_groups(p, c, decoded, t, row, rows);
  else if (p->kind == BF16) add_bf16[rows][c->blocks](&t);
  else add_tile[p->kind == FP8 && c->lines == decoded->lines ? F32 : p->kind][rows][c->blocks](&t);
}

static void clear_idle(const Product* p, int64_t block, int blocks) {
  const int64_t first = block * LANES, count = least(blocks * LANES, p->outputs - first);
  for (int64_t i = p->tokens; i < p->tokens + p->idle; i++)
    memset(p->y + p->order[i] * p->outputs + first, 0, (size_t)count * sizeof(float));
}

/* All steps of up to PART_TILES tiles and item_blocks blocks. Each tile also fetches its share of
 * the lines that come next into L2, so that memory and arithmetic overlap throughout: 10% faster at 16
 * tokens of float32 than when the first tile fetches all. */
static void product_item(const void* data, int64_t item) {
  const Product* p = data;
  __m512i sums[PART_TILES][TILE_ROWS * TILE_BLOCKS];
  Decoded decoded;
  const int64_t first = item / p->columns * PART_TILES, end = least(first + PART_TILES, p->tiles);
  const int64_t block = item % p->columns * p->item_blocks, left = p->blocks - block;
  const int blocks = (int)least(left, p->item_blocks);
  const int64_t bytes = p->kind == FP8 ? LANES : LINE, own = p->steps * bytes;
  if (first == 0) clear_idle(p, block, blocks);
  for (int64_t step = 0; step < p->steps; step += p->chunk) {
    const int last = p->steps - step <= p->chunk;
    Chunk c = {block, step, last ? p->steps - step : p->chunk, blocks,
               p->w + block * own + step * bytes, own, NULL, 0};
    c.ahead = last ? p->w + (block + blocks) * own : c.lines + p->chunk * bytes;
    /* nothing behind the last blocks */
    if (streams(p) && !(last && left < 2 * blocks)) c.every = end - first;
    if (p->codes != NULL) {
      c.lines = decoded.lines;
      c.stride = DECODED_LINES * LINE;
      decode_chunk(p, &c, &decoded);
    }
    for (int64_t tile = first; tile < end; tile++) {
      const int64_t row = tile * TILE_ROWS;
      __m512i* own_sums = sums[tile - first];
      add_chunk(p, &c, &decoded, tile, own_sums, tile == first && end - first > 1);
      if (c.every > 0) c.ahead += (c.steps + c.every - 1) / c.every * LINE;
      if (p->kind == FP8 && end - first > 1) {
        c.lines = decoded.lines;
        c.stride = DECODED_LINES * LINE;
      }
      if (last) finish(p, own_sums, row, block, (int)rows_of(p, tile), blocks);
    }
  }
}

/* ---- XLA ---- */

/* The parts of the scratch memory, for rows that are all live. Returns whether it is of the size that
 * they need. */
static int lay_out(Product* p) {
  const int64_t rows = p->terms * p->tokens, each = round_up(rows * 4);
  const int64_t excess = round_up(rows * p->groups * 4), units = round_up(rows * p->steps * 4);
  p->step = (float*)p->scratch;
  p->excess = (int32_t*)(p->scratch + each);
  p->units = (int32_t*)(p->scratch + each + excess);
  p->order = (int32_t*)(p->scratch + each + excess + units);
  return p->scratch_bytes == each + excess + units + round_up(p->tokens * 4);
}

static int is_zero(const float* x, int64_t count) {
  const __m512i size = _mm512_set1_epi32(0x7fffffff); /* zeros of either sign */
  for (int64_t i = 0; i < count; i += LANES)
    if (_mm512_test_epi32_mask(_mm512_maskz_loadu_epi32(first_lanes(count - i), x + i), size)) return 0;
  return 1;
}

/* Sets `order`, and tells tokens from idle ones. */
static void order_rows(Product* p) {
  const int64_t all = p->tokens;
  p->tokens = p->idle = 0;
  for (int64_t i = 0; i < all; i++)
    if (is_zero(p->x + i * p->inputs, p->inputs)) p->order[all - ++p->idle] = (int32_t)i;
    else p->order[p->tokens++] = (int32_t)i;
}

static Job* product_job(const XLA_FFI_CallFrame* frame, Product p) {
  const int64_t parts = (p.tiles + PART_TILES - 1) / PART_TILES, blocks = p.blocks;
  const int64_t threads = count_threads(frame);
  p.item_blocks = TILE_BLOCKS;
  while (p.item_blocks > 1 && parts * blocks < p.item_blocks * threads) p.item_blocks--;
  p.columns = (blocks + p.item_blocks - 1) / p.item_blocks;
  const Task task = {prepare_tile, product_item, p.tiles, parts * p.columns};
  Job* job = new_job(frame, task, sizeof(p));
  if (job != NULL) memcpy(data_of(job), &p, sizeof(p));
  return job;
}

XLA_FFI_Error* run_product(const XLA_FFI_CallFrame* frame, Product p) {
  if (p.tokens == 0 || p.outputs == 0) return NULL;
  p.steps = p.kind == F32 || p.kind == FP8 ? p.inputs : p.inputs / (p.kind == BF16 ? 2 : 4);
  p.groups = p.codes == NULL ? 1 : p.codes->groups;
  if (!lay_out(&p)) return fail(frame, "a CPU product: the scratch memory is of another size");
  order_rows(&p);
  if (p.tokens == 0) {
    memset(p.y, 0, (size_t)(p.idle * p.outputs) * sizeof(float));
    return NULL;
  }
  p.rows = p.terms * p.tokens;
  p.tiles = (p.rows + TILE_ROWS - 1) / TILE_ROWS;
  p.chunk = streams(&p) ? CHUNK_STEPS : DECODED_LINES;
  if (p.kind == NF4) p.chunk /= 2; /* two lines a step */
  Job* job = product_job(frame, p);
  if (job == NULL) return fail(frame, "a CPU product: out of host memory");
  run_job(frame, job);
  return NULL;
}

int read_product(const XLA_FFI_CallFrame* frame, int64_t arguments, Product* p) {
  if (frame->args.size != arguments || frame->rets.size != 2) return 0;
  const XLA_FFI_Buffer *x = frame->args.args[0], *y = frame->rets.rets[0];
  const XLA_FFI_Buffer* scratch = frame->rets.rets[1];
  const XLA_FFI_Buffer* w = frame->args.args[1];
  if (!is_array(x, XLA_FFI_DataType_F32, 2) || !is_array(y, XLA_FFI_DataType_F32, 2) ||
      !is_array(scratch, XLA_FFI_DataType_U8, 1) || x->dims[0] != y->dims[0] || w->rank < 1 ||
      w->dims[0] != (y->dims[1] + LANES - 1) / LANES)
    return 0;
  *p = (Product){.kind = INT8, .terms = 1, .factor = 1.0f,
                 .x = x->data, .w = w->data, .y = y->data,
                 .scratch = scratch->data, .scratch_bytes = scratch->dims[0],
                 .tokens = x->dims[0], .inputs = x->dims[1], .outputs = y->dims[1],
                 .blocks = w->dims[0]};
  return 1;
}

int holds(const XLA_FFI_CallFrame* frame, int64_t argument, XLA_FFI_DataType type, int64_t rank,
          const int64_t* dims) {
  const XLA_FFI_Buffer* x = frame->args.args[argument];
  return is_array(x, type, rank) && !memcmp(x->dims, dims, (size_t)rank * sizeof(*dims));
}

XLA_FFI_Error* misfit(const XLA_FFI_CallFrame* frame) {
  return fail(frame, "a CPU product: x, w, what belongs to w, and y do not fit together");
}

int read_int8(const XLA_FFI_CallFrame* frame, Product* p) {
  if (!read_product(frame, 3, p)) return 0;
  p->scale = ((const XLA_FFI_Buffer*)frame->args.args[2])->data;
  return holds(frame, 1, XLA_FFI_DataType_U8, 4,
               (int64_t[]){p->blocks, p->inputs / 4, LANES, 4}) &&
         holds(frame, 2, XLA_FFI_DataType_F32, 1, (int64_t[]){p->blocks * LANES}) && p->inputs % 4 == 0;
}

XLA_FFI_Error* loadstone_int8_product(XLA_FFI_CallFrame* frame) {
  Product p;
  if (!executes(frame)) return NULL;
  if (!read_int8(frame, &p)) return misfit(frame);
  p.terms = 2;
  return run_product(frame, p);
}

XLA_FFI_Error* loadstone_dynamic_product(XLA_FFI_CallFrame* frame) {
  Product p;
  if (!executes(frame)) return NULL;
  return read_int8(frame, &p) ? run_product(frame, p) : misfit(frame);
}

XLA_FFI_Error* loadstone_f32_product(XLA_FFI_CallFrame* frame) {
  Product p;
  if (!executes(frame)) return NULL;
  if (!read_product(frame, 2, &p) ||
      !holds(frame, 1, XLA_FFI_DataType_F32, 3,
             (int64_t[]){p.blocks, p.inputs, LANES}))
    return misfit(frame);
  p.kind = F32;
  return run_product(frame, p);
}
