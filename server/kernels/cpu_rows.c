/* What happens to the rows of an array between products, for x86 CPUs with AVX-512: XLA does these
 * on one thread or in several passes.
 *
 *   loadstone_norm        y[M,D] = x / sqrt(mean(x^2) + epsilon) * weight[D]
 *   loadstone_layer_norm  y[M,D] = (x - mean(x)) / sqrt(variance(x) + epsilon) * weight[D] + bias[D]
 *   loadstone_silu        y[M,F] = silu(x[M,0,F]) * x[M,1,F], or without the factor for x[M,1,F]
 *   loadstone_gelu        the same with the tanh form of gelu
 *   loadstone_relu        the same with relu
 *   loadstone_argmax      y[M] = the first index of the largest of x[M,V]; the last if any is NaN
 *
 * float32; a row of zeros stays zero but for a bias. A work item is some rows.
 */
#include "cpu_math.h"
#include "cpu_threads.h"

#define ITEM_FLOATS 16384 /* a work item has about so many */

typedef struct {
  const float *x, *weight, *bias;
  void* y;
  float epsilon;
  int64_t rows, item_rows, width; /* width: of a row of y */
  int64_t parts;                  /* of a row of x that an activation makes into one */
} Rows;

static void norm_row(const Rows* p, int64_t row) {
  const float* x = p->x + row * p->width;
  float* y = (float*)p->y + row * p->width;
  __m512 squares = _mm512_setzero_ps();
  for (int64_t i = 0; i < p->width; i += LANES) {
    const __m512 values = _mm512_maskz_loadu_ps(first_lanes(p->width - i), x + i);
    squares = _mm512_fmadd_ps(values, values, squares);
  }
  const float mean = _mm512_reduce_add_ps(squares) / (float)p->width;
  const __m512 factor = _mm512_set1_ps(1.0f / sqrtf(mean + p->epsilon));
  for (int64_t i = 0; i < p->width; i += LANES) {
    const __mmask16 live = first_lanes(p->width - i);
    const __m512 values = _mm512_mul_ps(_mm512_maskz_loadu_ps(live, x + i), factor);
    const __m512 weight = _mm512_maskz_loadu_ps(live, p->weight + i);
    _mm512_mask_storeu_ps(y + i, live, _mm512_mul_ps(values, weight));
  }
}

static void layer_norm_row(const Rows* p, int64_t row) {
  const float* x = p->x + row * p->width;
  float* y = (float*)p->y + row * p->width;
  __m512 sum = _mm512_setzero_ps(), squares = _mm512_setzero_ps();
  for (int64_t i = 0; i < p->width; i += LANES)
    sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(first_lanes(p->width - i), x + i));
  const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / (float)p->width);
  for (int64_t i = 0; i < p->width; i += LANES) {
    const __mmask16 live = first_lanes(p->width - i);
    const __m512 values = _mm512_maskz_sub_ps(live, _mm512_maskz_loadu_ps(live, x + i), mean);
    squares = _mm512_fmadd_ps(values, values, squares);
  }
  const float variance = _mm512_reduce_add_ps(squares) / (float)p->width;
  const __m512 factor = _mm512_set1_ps(1.0f / sqrtf(variance + p->epsilon));
  for (int64_t i = 0; i < p->width; i += LANES) {
    const __mmask16 live = first_lanes(p->width - i);
    const __m512 values = _mm512_sub_ps(_mm512_maskz_loadu_ps(live, x + i), mean);
    const __m512 weight = _mm512_maskz_loadu_ps(live, p->weight + i);
    const __m512 bias = _mm512_maskz_loadu_ps(live, p->bias + i);
    const __m512 scaled = _mm512_mul_ps(_mm512_mul_ps(values, factor), weight);
    _mm512_mask_storeu_ps(y + i, live, _mm512_add_ps(scaled, bias));
  }
}

/* x / (1 + exp(-z)) */
static inline __m512 times_sigmoid(__m512 x, __m512 z) {
  const __m512 one = _mm512_set1_ps(1.0f), zero = _mm512_setzero_ps();
  /* exp(-|z|) neither overflows nor cancels: the sigmoid is 1 / (1 + e) or e / (1 + e). */
  const __m512 e = exponential(_mm512_sub_ps(zero, _mm512_abs_ps(z)));
  const __mmask16 negative = _mm512_cmp_ps_mask(z, zero, _CMP_LT_OQ);
  const __m512 share = _mm512_div_ps(_mm512_mask_mov_ps(one, negative, e), _mm512_add_ps(one, e));
  return _mm512_mul_ps(x, share);
}

static inline __m512 silu(__m512 x) { return times_sigmoid(x, x); }

/* x (1 + tanh(u)) / 2 = x / (1 + exp(-2u)) with u = sqrt(2 / pi) (x + 0.044715 x^3) */
static inline __m512 gelu(__m512 x) {
  const __m512 cubic = _mm512_mul_ps(_mm512_set1_ps(0.044715f), _mm512_mul_ps(x, x));
  const __m512 inner = _mm512_fmadd_ps(cubic, x, x);
  return times_sigmoid(x, _mm512_mul_ps(_mm512_set1_ps(1.5957691216f), inner));
}

/* Of two the second when one is NaN, which so stays. */
static inline __m512 relu(__m512 x) { return _mm512_max_ps(_mm512_setzero_ps(), x); }

/* `activation` is a constant wherever this is inlined. */
static inline __attribute__((always_inline)) void activate_row(const Rows* p, int64_t row,
                                                               __m512 (*activation)(__m512)) {
  const float *x = p->x + row * p->parts * p->width, *up = x + p->width;
  float* y = (float*)p->y + row * p->width;
  for (int64_t i = 0; i < p->width; i += LANES) {
    const __mmask16 live = first_lanes(p->width - i);
    __m512 value = activation(_mm512_maskz_loadu_ps(live, x + i));
    if (p->parts == 2) value = _mm512_mul_ps(value, _mm512_maskz_loadu_ps(live, up + i));
    _mm512_mask_storeu_ps(y + i, live, value);
  }
}

static void silu_row(const Rows* p, int64_t row) { activate_row(p, row, silu); }
static void gelu_row(const Rows* p, int64_t row) { activate_row(p, row, gelu); }
static void relu_row(const Rows* p, int64_t row) { activate_row(p, row, relu); }

static void argmax_row(const Rows* p, int64_t row) {
  const float* x = p->x + row * p->width;
  __m512 best = _mm512_set1_ps(-INFINITY);
  __m512i best_index = _mm512_setzero_si512();
  __m512i index = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  __mmask16 strange = 0, met = 0; /* lanes with a NaN; lanes with any value */
  for (int64_t i = 0; i < p->width; i += LANES) {
    const __mmask16 live = first_lanes(p->width - i);
    const __m512 values = _mm512_mask_loadu_ps(best, live, x + i);
    strange |= _mm512_cmp_ps_mask(values, values, _CMP_UNORD_Q);
    const __mmask16 better = _mm512_cmp_ps_mask(values, best, _CMP_GT_OQ) | (live & ~met);
    best = _mm512_mask_mov_ps(best, better, values);
    best_index = _mm512_mask_mov_epi32(best_index, better, index);
    index = _mm512_add_epi32(index, _mm512_set1_epi32(LANES));
    met |= live;
  }
  const __m512 largest = _mm512_set1_ps(_mm512_mask_reduce_max_ps(met, best));
  const __mmask16 first = _mm512_mask_cmp_ps_mask(met, best, largest, _CMP_EQ_OQ);
  const int32_t last = (int32_t)p->width - 1;
  ((int32_t*)p->y)[row] = strange ? last : _mm512_mask_reduce_min_epi32(first, best_index);
}

static inline void each_row(const void* data, int64_t item, void (*do_row)(const Rows*, int64_t)) {
  const Rows* p = data;
  const int64_t end = least((item + 1) * p->item_rows, p->rows);
  for (int64_t row = item * p->item_rows; row < end; row++) do_row(p, row);
}

static void norm_item(const void* data, int64_t item) { each_row(data, item, norm_row); }
static void layer_norm_item(const void* data, int64_t item) {
  each_row(data, item, layer_norm_row);
}
static void silu_item(const void* data, int64_t item) { each_row(data, item, silu_row); }
static void gelu_item(const void* data, int64_t item) { each_row(data, item, gelu_row); }
static void relu_item(const void* data, int64_t item) { each_row(data, item, relu_row); }
static void argmax_item(const void* data, int64_t item) { each_row(data, item, argmax_row); }

/* ---- XLA ---- */

static XLA_FFI_Error* run_rows(const XLA_FFI_CallFrame* frame, Rows p,
                               void (*item)(const void*, int64_t)) {
  if (p.rows == 0 || p.width == 0) return NULL;
  p.item_rows = (ITEM_FLOATS + p.width - 1) / p.width;
  const int64_t items = (p.rows + p.item_rows - 1) / p.item_rows;
  return run_task(frame, (Task){NULL, item, 0, items}, &p, sizeof(p));
}

static const XLA_FFI_Buffer* argument(const XLA_FFI_CallFrame* frame, int64_t i) {
  return i < frame->args.size ? frame->args.args[i] : NULL;
}

static const XLA_FFI_Buffer* result(const XLA_FFI_CallFrame* frame) {
  return frame->rets.size == 1 ? frame->rets.rets[0] : NULL;
}

XLA_FFI_Error* loadstone_norm(XLA_FFI_CallFrame* frame) {
  if (!executes(frame)) return NULL;
  const XLA_FFI_Buffer *x = argument(frame, 0), *weight = argument(frame, 1), *y = result(frame);
  if (!is_array(x, XLA_FFI_DataType_F32, 2) || !is_array(weight, XLA_FFI_DataType_F32, 1) ||
      !is_array(y, XLA_FFI_DataType_F32, 2) || memcmp(x->dims, y->dims, 16) ||
      weight->dims[0] != x->dims[1])
    return fail(frame, "CPU norm: x, weight and y do not fit together");
  const Rows p = {.x = x->data, .weight = weight->data, .y = y->data, .rows = x->dims[0],
                  .epsilon = attribute(frame, "epsilon"), .width = x->dims[1]};
  return run_rows(frame, p, norm_item);
}

XLA_FFI_Error* loadstone_layer_norm(XLA_FFI_CallFrame* frame) {
  if (!executes(frame)) return NULL;
  const XLA_FFI_Buffer *x = argument(frame, 0), *weight = argument(frame, 1);
  const XLA_FFI_Buffer *bias = argument(frame, 2), *y = result(frame);
  if (!is_array(x, XLA_FFI_DataType_F32, 2) || !is_array(weight, XLA_FFI_DataType_F32, 1) ||
      !is_array(bias, XLA_FFI_DataType_F32, 1) || !is_array(y, XLA_FFI_DataType_F32, 2) ||
      memcmp(x->dims, y->dims, 16) || weight->dims[0] != x->dims[1] ||
      bias->dims[0] != x->dims[1])
    return fail(frame, "CPU layer norm: x, weight, bias and y do not fit together");
  const Rows p = {.x = x->data, .weight = weight->data, .bias = bias->data, .y = y->data,
                  .rows = x->dims[0], .epsilon = attribute(frame, "epsilon"),
                  .width = x->dims[1]};
  return run_rows(frame, p, layer_norm_item);
}

static XLA_FFI_Error* activate(XLA_FFI_CallFrame* frame, void (*item)(const void*, int64_t)) {
  if (!executes(frame)) return NULL;
  const XLA_FFI_Buffer *x = argument(frame, 0), *y = result(frame);
  if (!is_array(x, XLA_FFI_DataType_F32, 3) || !is_array(y, XLA_FFI_DataType_F32, 2) ||
      x->dims[1] < 1 || x->dims[1] > 2 || x->dims[0] != y->dims[0] || x->dims[2] != y->dims[1])
    return fail(frame, "CPU activation: x and y do not fit together");
  const Rows p = {.x = x->data, .y = y->data, .rows = x->dims[0], .width = x->dims[2],
                  .parts = x->dims[1]};
  return run_rows(frame, p, item);
}

XLA_FFI_Error* loadstone_silu(XLA_FFI_CallFrame* frame) { return activate(frame, silu_item); }
XLA_FFI_Error* loadstone_gelu(XLA_FFI_CallFrame* frame) { return activate(frame, gelu_item); }
XLA_FFI_Error* loadstone_relu(XLA_FFI_CallFrame* frame) { return activate(frame, relu_item); }

XLA_FFI_Error* loadstone_argmax(XLA_FFI_CallFrame* frame) {
  if (!executes(frame)) return NULL;
  const XLA_FFI_Buffer *x = argument(frame, 0), *y = result(frame);
  if (!is_array(x, XLA_FFI_DataType_F32, 2) || !is_array(y, XLA_FFI_DataType_S32, 1) ||
      x->dims[0] != y->dims[0])
    return fail(frame, "CPU argmax: x and y do not fit together");
  const Rows p = {.x = x->data, .y = y->data, .rows = x->dims[0], .width = x->dims[1]};
  return run_rows(frame, p, argmax_item);
}
