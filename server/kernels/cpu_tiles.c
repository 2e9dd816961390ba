/* The inner loops of the weight products: units times lines, with all sums in registers.
 *
 * A step multiplies a line of each block with a unit of each row. 24 sums, 3 lines and a spread unit
 * fill the 32 registers that there are; NF4 has two lines a block and fits as well.
 *
 *   INT8  sum += line . unit       four inputs, uint8 x int8 -> int32
 *   F32   sum += line * unit       one input
 *   FP8   the same; a line is 16 bytes of e4m3 and can be stored as float32 for the next tiles
 *   INT4  as INT8; after each group of inputs total += (sum + excess) * scale, in float32
 *   NF4   the same with two lines a step, high + low / 254, and rows of units in pairs of the same:
 *         high sum += high . high, low sum += high . low + low . high; low . low is below rounding
 */
#include "cpu_products.h"

#define ALWAYS static inline __attribute__((always_inline))

ALWAYS __m512 real(__m512i x) { return _mm512_castsi512_ps(x); }

/* e4m3 has seven bits of exponent and fraction where half precision has them too, seven places
 * further left: vcvtph2ps reads them right, those below the normal ones as well, but for a factor. */
ALWAYS __m512i read_fp8(const uint8_t* line) {
  const __m256i kept = _mm256_set1_epi16((short)0xbfff); /* all but the copy of the sign */
  const __m256i wide = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)line));
  const __m256i half = _mm256_and_si256(_mm256_slli_epi16(wide, 7), kept);
  return _mm512_castps_si512(_mm512_cvtph_ps(half));
}

ALWAYS __m512i multiply_add(__m512i sum, __m512i line, __m512i unit, const Kind kind) {
  if (kind == F32 || kind == FP8)
    return _mm512_castps_si512(_mm512_fmadd_ps(real(line), real(unit), real(sum)));
  return _mm512_dpbusd_epi32(sum, line, unit);
}

/* `rows`, `blocks` and `kind` are constants wherever these are inlined. */
ALWAYS void add_lines(const Tile* t, const int rows, const int blocks, const Kind kind) {
  __m512i sums[TILE_ROWS][TILE_BLOCKS];
  const int32_t* units = t->units;
  const uint8_t *line = t->lines, *ahead = t->ahead;
  float* store = t->store;
  const int64_t stride = t->stride, bytes = kind == FP8 ? LANES : LINE;
  int64_t wait = t->every > 0; /* the first step fetches too */
  UNROLL for (int r = 0; r < rows; r++)
    UNROLL for (int b = 0; b < blocks; b++)
      sums[r][b] = t->fresh ? _mm512_setzero_si512() : t->sums[r * TILE_BLOCKS + b];
  for (int64_t s = t->steps; s > 0; s--) {
    __m512i lines[TILE_BLOCKS];
    UNROLL for (int b = 0; b < blocks; b++)
      lines[b] = kind == FP8 ? read_fp8(line + b * stride) : _mm512_loadu_si512(line + b * stride);
    if (kind == FP8 && store != NULL) {
      UNROLL for (int b = 0; b < blocks; b++) _mm512_store_si512(store + b * t->stored, lines[b]);
      store += LANES;
    }
    if (kind != FP8 && --wait == 0) {
      wait = t->every;
      UNROLL for (int b = 0; b < blocks; b++)
        _mm_prefetch((const char*)ahead + b * stride, _MM_HINT_T1);
      ahead += LINE;
    }
    UNROLL for (int r = 0; r < rows; r++) {
      __m512i unit = _mm512_set1_epi32(units[r]);
      UNROLL for (int b = 0; b < blocks; b++)
        sums[r][b] = multiply_add(sums[r][b], lines[b], unit, kind);
    }
    line += bytes;
    units += rows;
  }
  UNROLL for (int r = 0; r < rows; r++)
    UNROLL for (int b = 0; b < blocks; b++) t->sums[r * TILE_BLOCKS + b] = sums[r][b];
}

/* Where a sum enters and leaves a loop: otherwise gcc 12 keeps it twice, as lanes of 32 bits and as a
 * plain register, and half of all sums in memory. */
ALWAYS __m512i settled(__m512i x) {
  __asm__("" : "+v"(x));
  return x;
}

/* One group of inputs. */
ALWAYS void add_group(const Tile* t, const int rows, const int blocks, const Kind kind) {
  __m512i sums[TILE_ROWS][TILE_BLOCKS];
  const int32_t* units = t->units;
  const uint8_t* line = t->lines;
  const int64_t stride = t->stride;
  UNROLL for (int r = 0; r < rows; r++)
    UNROLL for (int b = 0; b < blocks; b++)
      sums[r][b] = settled(_mm512_set1_epi32(t->excess[r * t->excess_stride]));
  for (int64_t s = t->steps; s > 0; s--) {
    __m512i lines[TILE_BLOCKS], lows[TILE_BLOCKS];
    UNROLL for (int b = 0; b < blocks; b++) lines[b] = _mm512_load_si512(line + b * stride);
    if (kind == NF4)
      UNROLL for (int b = 0; b < blocks; b++)
        lows[b] = _mm512_load_si512(line + b * stride + LINE);
    UNROLL for (int r = 0; r < rows; r++) {
      __m512i unit = _mm512_set1_epi32(units[r]);
      UNROLL for (int b = 0; b < blocks; b++) {
        sums[r][b] = _mm512_dpbusd_epi32(sums[r][b], lines[b], unit);
        if (kind == NF4 && r % 2 == 0)
          sums[r + 1][b] = _mm512_dpbusd_epi32(sums[r + 1][b], lows[b], unit);
      }
    }
    line += kind == NF4 ? 2 * LINE : LINE;
    units += rows;
  }
  UNROLL for (int r = 0; r < rows; r++)
    UNROLL for (int b = 0; b < blocks; b++) {
      __m512* total = (__m512*)t->sums + r * TILE_BLOCKS + b;
      const __m512 old = t->fresh ? _mm512_setzero_ps() : *total;
      const __m512 sum = _mm512_cvtepi32_ps(settled(sums[r][b]));
      *total = _mm512_fmadd_ps(sum, t->scales[b], old);
    }
}

/* A function for each size: in one function gcc 12 keeps the sums in memory as well. */
#define SIZE(kind, rows, blocks, body)                                                   \
  static __attribute__((noinline)) void add_##kind##_##rows##_##blocks(const Tile* t) { \
    body(t, rows, blocks, kind);                                                         \
  }
#define SIZES(kind, rows, body) \
  SIZE(kind, rows, 1, body) SIZE(kind, rows, 2, body) SIZE(kind, rows, 3, body)
#define ODD_SIZES(kind, body) \
  SIZES(kind, 1, body) SIZES(kind, 3, body) SIZES(kind, 5, body) SIZES(kind, 7, body)
#define EVEN_SIZES(kind, body) \
  SIZES(kind, 2, body) SIZES(kind, 4, body) SIZES(kind, 6, body) SIZES(kind, 8, body)
ODD_SIZES(INT8, add_lines)
EVEN_SIZES(INT8, add_lines)
ODD_SIZES(F32, add_lines)
EVEN_SIZES(F32, add_lines)
ODD_SIZES(FP8, add_lines)
EVEN_SIZES(FP8, add_lines)
EVEN_SIZES(INT4, add_group)
EVEN_SIZES(NF4, add_group)

#define ENTRY(kind, rows) \
  [kind][rows] = {NULL, add_##kind##_##rows##_1, add_##kind##_##rows##_2, add_##kind##_##rows##_3}
#define ODD(kind) ENTRY(kind, 1), ENTRY(kind, 3), ENTRY(kind, 5), ENTRY(kind, 7)
#define EVEN(kind) ENTRY(kind, 2), ENTRY(kind, 4), ENTRY(kind, 6), ENTRY(kind, 8)
const AddTile add_tile[KINDS][TILE_ROWS + 1][TILE_BLOCKS + 1] = {
    ODD(INT8), EVEN(INT8), ODD(F32), EVEN(F32), ODD(FP8), EVEN(FP8), EVEN(INT4), EVEN(NF4)};
