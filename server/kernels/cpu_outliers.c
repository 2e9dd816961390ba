/* LLM.int8() for x86 CPUs with AVX-512 VNNI (Dettmers et al. 2022, arXiv:2208.07339).
 *
 *   loadstone_decomp_product  y[M,N] = x[M,K] @ w[N,K]^T * scale[N]  w int8, the rest float32
 *
 * Inputs in which any of the M rows reaches the threshold are multiplied in float32; the rest of x is
 * int8, with scales of max|x| / 127 over what stays below the threshold in a row. There are as many
 * outliers as there are: no arrays depend on their number, and each costs a line of weights again.
 */
#include "cpu_products.h"

#include <stdlib.h>

#define STRIPE 64          /* inputs that a work item looks through */
#define FEW_FLOATS 65536   /* so many are looked through where we are: a job takes 5 us */
#define INT8_OFFSET 128

typedef struct {
  const Product* p;
  float threshold;
  __mmask16* masks;
} Search;

static void search_stripe(const void* data, int64_t stripe) {
  const Search* s = data;
  const int64_t inputs = s->p->inputs, end = least((stripe + 1) * STRIPE, inputs);
  const __m512 threshold = _mm512_set1_ps(s->threshold);
  for (int64_t k = stripe * STRIPE; k < end; k += LANES) {
    __mmask16 met = 0;
    for (int64_t t = 0; t < s->p->tokens; t++) {
      const __m512 x = _mm512_maskz_loadu_ps(first_lanes(inputs - k), s->p->x + t * inputs + k);
      met |= _mm512_cmp_ps_mask(_mm512_abs_ps(x), threshold, _CMP_GE_OQ);
    }
    s->masks[k / LANES] = met;
  }
}

static XLA_FFI_Error* search(const XLA_FFI_CallFrame* frame, Search s) {
  const int64_t stripes = (s.p->inputs + STRIPE - 1) / STRIPE;
  if (s.p->tokens * s.p->inputs > FEW_FLOATS)
    return run_task(frame, (Task){NULL, search_stripe, 0, stripes}, &s, sizeof(s));
  for (int64_t i = 0; i < stripes; i++) search_stripe(&s, i);
  return NULL;
}

float largest_below(const float* x, int64_t count, float threshold) {
  __m512i best = _mm512_setzero_si512();
  const __m512 limit = _mm512_set1_ps(threshold);
  for (int64_t i = 0; i < count; i += LANES) {
    const __m512 size = _mm512_abs_ps(_mm512_maskz_loadu_ps(first_lanes(count - i), x + i));
    const __mmask16 below = _mm512_cmp_ps_mask(size, limit, _CMP_NGE_UQ); /* or NaN */
    best = _mm512_mask_max_epi32(best, below, best, _mm512_castps_si512(size));
  }
  return _mm512_cvtss_f32(_mm512_castsi512_ps(_mm512_set1_epi32(_mm512_reduce_max_epi32(best))));
}

void add_outliers(const Product* p, int64_t token, int tokens, int64_t block, __m512* values) {
  const Outliers* o = p->outliers;
  const uint8_t* lines = p->w + block * p->steps * LINE;
  for (int64_t i = 0; i < o->count; i++) {
    const int32_t input = o->inputs[i];
    const __m512i four = _mm512_loadu_si512(lines + input / 4 * LINE);
    const __m512i one = _mm512_srl_epi32(four, _mm_cvtsi32_si128(input % 4 * 8));
    const __m512i code = _mm512_and_si512(one, _mm512_set1_epi32(255));
    const __m512 w = _mm512_cvtepi32_ps(_mm512_sub_epi32(code, _mm512_set1_epi32(INT8_OFFSET)));
    for (int t = 0; t < tokens; t++) {
      const __m512 x = _mm512_set1_ps(o->values[p->order[token + t] * o->count + i]);
      values[t] = _mm512_fmadd_ps(x, w, values[t]);
    }
  }
}

/* ---- XLA ---- */

static int64_t list_outliers(const __mmask16* masks, int64_t inputs, int32_t* list) {
  int64_t count = 0;
  for (int64_t k = 0; k < inputs; k += LANES)
    for (unsigned rest = masks[k / LANES]; rest; rest &= rest - 1)
      list[count++] = (int32_t)k + __builtin_ctz(rest);
  return count;
}

static XLA_FFI_Error* run_with(const XLA_FFI_CallFrame* frame, Product p, Outliers o) {
  float* values = malloc((size_t)(p.tokens * o.count + 1) * sizeof(float));
  if (values == NULL) return fail(frame, "a CPU product: out of host memory");
  for (int64_t t = 0; t < p.tokens; t++)
    for (int64_t i = 0; i < o.count; i++)
      values[t * o.count + i] = p.x[t * p.inputs + o.inputs[i]];
  o.values = values;
  p.outliers = &o;
  XLA_FFI_Error* error = run_product(frame, p);
  free(values);
  return error;
}

XLA_FFI_Error* loadstone_decomp_product(XLA_FFI_CallFrame* frame) {
  Product p;
  if (!executes(frame)) return NULL;
  if (!read_int8(frame, &p)) return misfit(frame);
  const float threshold = attribute(frame, "threshold");
  const int64_t words = (p.inputs + LANES - 1) / LANES;
  int32_t* list = malloc((size_t)p.inputs * sizeof(int32_t) + (size_t)words * sizeof(__mmask16));
  if (list == NULL) return fail(frame, "a CPU product: out of host memory");
  __mmask16* masks = (__mmask16*)(list + p.inputs);
  XLA_FFI_Error* error = search(frame, (Search){&p, threshold, masks});
  if (error == NULL) {
    const int64_t count = list_outliers(masks, p.inputs, list);
    error = run_with(frame, p, (Outliers){threshold, masks, list, NULL, count});
  }
  free(list);
  return error;
}
