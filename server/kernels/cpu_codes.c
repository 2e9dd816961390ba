/* Products with weights of 4 and 8 bits that become lines as they are used, for x86 CPUs with
 * AVX-512 VNNI. What is stored and what it means:
 *
 *   loadstone_nf4_product     table[code] * scale     scale[N, K/block] float32
 *   loadstone_nf4_dq_product  the same                scale = level[rank] * spread + mean
 *   loadstone_int4_product    (code - 8) * scale      scale[N, K/block] float32
 *   loadstone_fp8_product     e4m3 * scale            scale[N] float32
 *
 * A line of 4-bit codes holds eight inputs of 16 outputs, [N/16, K/8, 16, 4] bytes: byte j of an
 * output has input j in its lower and input j + 4 in its upper half. Of fp8 a line holds four inputs,
 * [N/16, K, 16] bytes. Scales of blocks are [N/16, K/block, 16].
 *
 * A work item decodes a chunk of 4-bit codes for all its tiles: to bytes, which run against two int8
 * terms of x with sums of their own for each block of inputs. A table of nf4 is two bytes a code, as x
 * is two terms, so about 15 bits of both survive; three int8 products of four inputs take less time than
 * four of float32. fp8 is not of one magnitude and becomes float32.
 */
#include "cpu_products.h"

#define FP8_FACTOR 256.0f /* e4m3 bits read as half precision are smaller by so much */
#define AHEAD 32          /* lines of codes that are fetched ahead: those of the next chunk */
#define LOW_STEP 254.0f
#define SMALLEST_BLOCK 32 /* so that CHUNK_GROUPS is enough */
#define CHUNK_INPUTS 256  /* whole blocks are decoded at a time */

__m512 scales_of(const Product* p, int64_t block, int64_t group) {
  const Codes* c = p->codes;
  const int64_t at = (block * c->groups + group) * LANES;
  const __m512 factor = _mm512_set1_ps(c->factor);
  if (c->ranks == NULL) return _mm512_mul_ps(factor, _mm512_loadu_ps(c->scales + at));
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i ranks = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)(c->ranks + at)));
  /* The spread of output n's scale g is number (n * groups + g) / RANKS. */
  const __m512i first = _mm512_set1_epi32((int)(block * LANES * c->groups + group));
  const __m512i flat = _mm512_mullo_epi32(lane, _mm512_set1_epi32((int)c->groups));
  __m512i number = _mm512_srli_epi32(_mm512_add_epi32(first, flat), 8);
  number = _mm512_min_epi32(number, _mm512_set1_epi32((int)c->spread_count - 1));
  const __m512 level = _mm512_i32gather_ps(ranks, c->levels, 4);
  const __m512 spread = _mm512_i32gather_ps(number, c->spreads, 4);
  const __m512 scale = _mm512_add_ps(_mm512_mul_ps(level, spread), _mm512_set1_ps(*c->mean));
  return _mm512_mul_ps(factor, scale);
}

void decode(const Product* p, int64_t block, int64_t step, int64_t count, uint8_t* lines) {
  const uint8_t* codes = p->w + (block * p->steps + step) * LINE / 2;
  const __m512i four_bits = _mm512_set1_epi8(15), high = p->codes->high, low = p->codes->low;
  for (; count > 0; count -= 2, codes += LINE) {
    const __m512i both = _mm512_loadu_si512(codes);
    const __m512i first = _mm512_and_si512(both, four_bits);
    const __m512i second = _mm512_and_si512(_mm512_srli_epi16(both, 4), four_bits);
    _mm_prefetch((const char*)codes + AHEAD * LINE, _MM_HINT_T0);
    if (p->kind == INT4) {
      _mm512_store_si512(lines, first);
      _mm512_store_si512(lines + LINE, second);
      lines += 2 * LINE;
      continue;
    }
    _mm512_store_si512(lines, _mm512_shuffle_epi8(high, first));
    _mm512_store_si512(lines + LINE, _mm512_shuffle_epi8(low, first));
    _mm512_store_si512(lines + 2 * LINE, _mm512_shuffle_epi8(high, second));
    _mm512_store_si512(lines + 3 * LINE, _mm512_shuffle_epi8(low, second));
    lines += 4 * LINE;
  }
}

/* ---- XLA ---- */

static const void* data_at(const XLA_FFI_CallFrame* frame, int64_t i) {
  return ((const XLA_FFI_Buffer*)frame->args.args[i])->data;
}

/* A call with 4-bit codes and the scales of blocks. */
static int read_codes(const XLA_FFI_CallFrame* frame, int64_t arguments, XLA_FFI_DataType type,
                      Product* p, Codes* c) {
  if (!read_product(frame, arguments, p)) return 0;
  const int64_t blocks = p->blocks, block = (int64_t)attribute(frame, "block");
  if (p->inputs % 8 || block < SMALLEST_BLOCK || CHUNK_INPUTS % block) return 0;
  *c = (Codes){.block = block, .groups = (p->inputs + block - 1) / block, .factor = 1.0f};
  p->codes = c;
  p->terms = 2;
  return holds(frame, 1, XLA_FFI_DataType_U8, 4, (int64_t[]){blocks, p->inputs / 8, LANES, 4}) &&
         holds(frame, 2, type, 3, (int64_t[]){blocks, c->groups, LANES});
}

/* The table of nf4, values from -1 to 1, as (high + low / 254) / 127. */
static int read_table(const XLA_FFI_CallFrame* frame, int64_t i, Codes* c) {
  if (!holds(frame, i, XLA_FFI_DataType_F32, 1, (int64_t[]){LANES})) return 0;
  const __m512 table = _mm512_mul_ps(_mm512_loadu_ps(data_at(frame, i)), _mm512_set1_ps(127.0f));
  const __m512 high = _mm512_roundscale_ps(table, _MM_FROUND_TO_NEAREST_INT);
  const __m512 low = _mm512_mul_ps(_mm512_sub_ps(table, high), _mm512_set1_ps(LOW_STEP));
  const __m512i offset = _mm512_set1_epi32(128);
  const __m512i highs = _mm512_add_epi32(_mm512_cvtps_epi32(high), offset);
  const __m512i lows = _mm512_add_epi32(_mm512_cvtps_epi32(low), offset);
  c->high = _mm512_broadcast_i32x4(_mm512_cvtepi32_epi8(highs));
  c->low = _mm512_broadcast_i32x4(_mm512_cvtepi32_epi8(lows));
  c->factor = 1.0f / 127.0f;
  return 1;
}

XLA_FFI_Error* loadstone_nf4_product(XLA_FFI_CallFrame* frame) {
  Product p;
  Codes c;
  if (!executes(frame)) return NULL;
  if (!read_codes(frame, 4, XLA_FFI_DataType_F32, &p, &c) || !read_table(frame, 3, &c))
    return misfit(frame);
  p.kind = NF4;
  c.scales = data_at(frame, 2);
  return run_product(frame, p);
}

XLA_FFI_Error* loadstone_nf4_dq_product(XLA_FFI_CallFrame* frame) {
  Product p;
  Codes c;
  if (!executes(frame)) return NULL;
  if (!read_codes(frame, 7, XLA_FFI_DataType_U8, &p, &c) || !read_table(frame, 6, &c) ||
      !is_array(frame->args.args[3], XLA_FFI_DataType_F32, 1) ||
      !holds(frame, 4, XLA_FFI_DataType_F32, 1, (int64_t[]){1}) ||
      !holds(frame, 5, XLA_FFI_DataType_F32, 1, (int64_t[]){256}))
    return misfit(frame);
  p.kind = NF4;
  c.ranks = data_at(frame, 2);
  c.spreads = data_at(frame, 3);
  c.spread_count = ((const XLA_FFI_Buffer*)frame->args.args[3])->dims[0];
  c.mean = data_at(frame, 4);
  c.levels = data_at(frame, 5);
  return run_product(frame, p);
}

XLA_FFI_Error* loadstone_int4_product(XLA_FFI_CallFrame* frame) {
  Product p;
  Codes c;
  if (!executes(frame)) return NULL;
  if (!read_codes(frame, 3, XLA_FFI_DataType_F32, &p, &c)) return misfit(frame);
  p.kind = INT4;
  c.scales = data_at(frame, 2);
  return run_product(frame, p);
}

XLA_FFI_Error* loadstone_fp8_product(XLA_FFI_CallFrame* frame) {
  Product p;
  if (!executes(frame)) return NULL;
  if (!read_product(frame, 3, &p)) return misfit(frame);
  if (!holds(frame, 1, XLA_FFI_DataType_U8, 3, (int64_t[]){p.blocks, p.inputs, LANES}) ||
      !holds(frame, 2, XLA_FFI_DataType_F32, 1, (int64_t[]){p.blocks * LANES}))
    return misfit(frame);
  p.kind = FP8;
  p.scale = data_at(frame, 2);
  p.factor = FP8_FACTOR;
  return run_product(frame, p);
}
