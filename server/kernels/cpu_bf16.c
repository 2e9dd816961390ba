/* Products in bfloat16, for x86 CPUs with AVX512-BF16: twice the multiply-adds of float32 FMAs.
 *
 *   loadstone_bf16_product  y[M,N] = bfloat16(x[M,K]) @ w[N,K]^T  w bfloat16, x and y float32
 *
 * A line holds two inputs of 16 outputs, w is [N/16, K/2, 16, 2]; a unit is two inputs of a row.
 * vdpbf16ps adds both products to a float32, of which numbers below 2^-126 count as zero, in x and
 * w as in the sums. It rounds each product's sum to nearest by Intel's manual, however the control
 * register is set.
 *
 * Only this file needs these instructions, so all others run where there is VNNI alone. A compiler
 * that does not know them (gcc before 10, clang before 9) leaves the product out.
 */
#include "cpu_products.h"

#if __has_include(<avx512bf16intrin.h>) && !defined(LOADSTONE_WITHOUT_BF16)

#define NEEDS_BF16 __attribute__((target("avx512bf16")))
#define PAIRS_AT_ONCE LANES

/* 32 values from `x` on as 16 pairs, with zeros from `left` on. */
static inline NEEDS_BF16 __m512i read_pairs(const float* x, int64_t left) {
  const __m512 low = _mm512_maskz_loadu_ps(first_lanes(left), x);
  const __mmask16 live = left > LANES ? first_lanes(left - LANES) : 0;
  return (__m512i)_mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(live, x + LANES), low);
}

NEEDS_BF16 void prepare_bf16(const Product* p, int64_t row, int64_t rows, int32_t* units,
                             Self* self) {
  _Alignas(LINE) int32_t pairs[TILE_ROWS][PAIRS_AT_ONCE];
  for (int64_t step = 0; step < p->steps; step += PAIRS_AT_ONCE) {
    const int64_t steps = least(p->steps - step, PAIRS_AT_ONCE);
    for (int64_t r = 0; r < rows; r++) {
      const float* x = p->x + p->order[row + r] * p->inputs + 2 * step;
      _mm512_store_si512(pairs[r], read_pairs(x, p->inputs - 2 * step));
    }
    for (int64_t s = 0; s < steps; s++, fetch_line(self))
      for (int64_t r = 0; r < rows; r++) *units++ = pairs[r][s];
  }
}

/* As `add_lines` in `cpu_tiles.c`. */
static inline __attribute__((always_inline)) NEEDS_BF16 void add_pairs(const Tile* t,
                                                                       const int rows,
                                                                       const int blocks) {
  __m512 sums[TILE_ROWS][TILE_BLOCKS];
  const int32_t* units = t->units;
  const uint8_t *line = t->lines, *ahead = t->ahead;
  const int64_t stride = t->stride;
  int64_t wait = t->every > 0;
  UNROLL for (int r = 0; r < rows; r++)
    UNROLL for (int b = 0; b < blocks; b++)
      sums[r][b] = t->fresh ? _mm512_setzero_ps()
                            : _mm512_castsi512_ps(t->sums[r * TILE_BLOCKS + b]);
  for (int64_t s = t->steps; s > 0; s--) {
    __m512bh lines[TILE_BLOCKS];
    UNROLL for (int b = 0; b < blocks; b++)
      lines[b] = (__m512bh)_mm512_loadu_si512(line + b * stride);
    if (--wait == 0) {
      wait = t->every;
      UNROLL for (int b = 0; b < blocks; b++)
        _mm_prefetch((const char*)ahead + b * stride, _MM_HINT_T1);
      ahead += LINE;
    }
    UNROLL for (int r = 0; r < rows; r++) {
      const __m512bh unit = (__m512bh)_mm512_set1_epi32(units[r]);
      UNROLL for (int b = 0; b < blocks; b++)
        sums[r][b] = _mm512_dpbf16_ps(sums[r][b], lines[b], unit);
    }
    line += LINE;
    units += rows;
  }
  UNROLL for (int r = 0; r < rows; r++)
    UNROLL for (int b = 0; b < blocks; b++)
      t->sums[r * TILE_BLOCKS + b] = _mm512_castps_si512(sums[r][b]);
}

#define SIZE(rows, blocks)                                                               \
  static NEEDS_BF16 __attribute__((noinline)) void add_##rows##_##blocks(const Tile* t) { \
    add_pairs(t, rows, blocks);                                                          \
  }
#define SIZES(rows) SIZE(rows, 1) SIZE(rows, 2) SIZE(rows, 3)
SIZES(1) SIZES(2) SIZES(3) SIZES(4) SIZES(5) SIZES(6) SIZES(7) SIZES(8)

#define ENTRY(rows) {NULL, add_##rows##_1, add_##rows##_2, add_##rows##_3}
const AddTile add_bf16[TILE_ROWS + 1][TILE_BLOCKS + 1] = {
    {NULL},   ENTRY(1), ENTRY(2), ENTRY(3), ENTRY(4), ENTRY(5), ENTRY(6), ENTRY(7), ENTRY(8)};

XLA_FFI_Error* loadstone_bf16_product(XLA_FFI_CallFrame* frame) {
  Product p;
  if (!executes(frame)) return NULL;
  if (!read_product(frame, 2, &p) || p.inputs % 2 ||
      !holds(frame, 1, XLA_FFI_DataType_BF16, 4,
             (int64_t[]){p.blocks, p.inputs / 2, LANES, 2}))
    return misfit(frame);
  p.kind = BF16;
  return run_product(frame, p);
}

#else

const AddTile add_bf16[TILE_ROWS + 1][TILE_BLOCKS + 1];
void prepare_bf16(const Product* p, int64_t row, int64_t rows, int32_t* units, Self* self) {}

#endif
