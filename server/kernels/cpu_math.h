/* What the CPU kernels compute with: registers of 16 floats. */
#ifndef LOADSTONE_CPU_MATH_H_
#define LOADSTONE_CPU_MATH_H_

#include <immintrin.h>
#include <math.h>
#include <stdint.h>

#define LANES 16
/* Without it gcc 12 keeps arrays of registers in memory: half the speed. */
#define UNROLL _Pragma("GCC unroll 16")

static inline __mmask16 first_lanes(int64_t count) {
  return count >= LANES ? (__mmask16)0xffff : (__mmask16)((1u << count) - 1);
}

/* exp(x) to 2e-7 relative, for x <= 0; 0 below -103.98, NaN stays NaN. Cephes' polynomial for
 * |r| <= ln(2) / 2. */
static inline __m512 exponential(__m512 x) {
  const __m512 log2e = _mm512_set1_ps(1.44269504f);
  x = _mm512_max_ps(_mm512_set1_ps(-104.0f), x); /* of two the second, when one is NaN */
  __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, log2e), _MM_FROUND_TO_NEAREST_INT);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
  const float terms[] = {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f,
                         1.6666665459e-1f, 5.0000001201e-1f, 1.0f, 1.0f};
  __m512 y = _mm512_set1_ps(1.9875691500e-4f);
  UNROLL for (int i = 0; i < 7; i++) y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(terms[i]));
  return _mm512_scalef_ps(y, n);
}

/* max|x|. As integers NaN is above infinity is above all numbers, so neither can vanish. */
static inline float largest_magnitude(const float* x, int64_t count) {
  __m512i best = _mm512_setzero_si512();
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  for (int64_t i = 0; i < count; i += LANES) {
    __m512 values = _mm512_maskz_loadu_ps(first_lanes(count - i), x + i);
    best = _mm512_max_epi32(best, _mm512_and_si512(_mm512_castps_si512(values), magnitude));
  }
  return _mm512_cvtss_f32(_mm512_castsi512_ps(_mm512_set1_epi32(_mm512_reduce_max_epi32(best))));
}

static inline void scale_by(float* x, int64_t count, float factor) {
  for (int64_t i = 0; i < count; i++) x[i] *= factor;
}

#endif
