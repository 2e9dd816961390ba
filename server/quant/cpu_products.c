/* int8 weight-only matrix product for x86 CPUs with AVX-512 VNNI, called by XLA through its FFI.
 *
 *   y[M,N] = x[M,K] @ w[N,K]^T * scale[N]      x, y, scale float32; w int8
 *
 * Each row of x is split into two int8 terms, x = s * (hi + lo / 254) with s = max|x| / 127, so about
 * 15 bits of the activation survive. Both terms run through the same weights as rows of one product.
 *
 * w arrives packed as uint8 (w + 128) in [N/16, K/4, 16, 4]: one 64-byte load holds four inputs of
 * sixteen outputs, as vpdpbusd wants them. The excess of 128 * sum(x) is taken off at the end.
 */
#include <immintrin.h>
#include <math.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "xla/ffi/api/c_api.h"

#define LANES 16           /* outputs in one register */
#define TILE_ROWS 8        /* int8 rows of a register tile: four tokens, two terms each */
#define TILE_BLOCKS 3      /* registers of outputs in a register tile */
#define ITEM_BLOCKS 6      /* blocks of LANES outputs that one work item computes */
#define QUANTIZE_ROWS 8    /* tokens that one quantize work item handles */
#define LOW_STEP 254.0f

typedef struct {
  const float* x;
  const uint8_t* w;
  const float* scale;
  float* y;
  int64_t tokens, inputs, outputs;
  int8_t* terms;   /* [rows, inputs], rows = 2 * tokens rounded up to TILE_ROWS; hi and lo alternate */
  float* step;     /* [rows]: what one unit of the term is worth */
  int32_t* excess; /* [rows]: 128 * sum of the term */
} Product;

typedef struct Job {
  void (*run)(const Product*, int64_t item);
  const Product* product;
  int64_t items;
  _Atomic int64_t next, done;
  _Atomic int owners; /* a task may start after the caller has left: the last one out frees the job */
} Job;

static void quantize_row(const Product* p, int64_t token) {
  const float* x = p->x + token * p->inputs;
  int8_t* hi = p->terms + 2 * token * p->inputs;
  int8_t* lo = hi + p->inputs;
  float largest = 0.0f;
  for (int64_t k = 0; k < p->inputs; k++) {
    float a = fabsf(x[k]);
    largest = a > largest ? a : largest;
  }
  float step = largest / 127.0f;
  float inverse = 127.0f / (largest > 1e-30f ? largest : 1e-30f);
  int32_t sum_hi = 0, sum_lo = 0;
  for (int64_t k = 0; k < p->inputs; k++) {
    float scaled = x[k] * inverse;
    float high = nearbyintf(scaled);
    int32_t low = (int32_t)nearbyintf((scaled - high) * LOW_STEP);
    hi[k] = (int8_t)(int32_t)high;
    lo[k] = (int8_t)low;
    sum_hi += (int32_t)high;
    sum_lo += low;
  }
  p->step[2 * token] = step;
  p->step[2 * token + 1] = step / LOW_STEP;
  p->excess[2 * token] = 128 * sum_hi;
  p->excess[2 * token + 1] = 128 * sum_lo;
}

static void quantize_item(const Product* p, int64_t item) {
  int64_t end = (item + 1) * QUANTIZE_ROWS;
  for (int64_t t = item * QUANTIZE_ROWS; t < end && t < p->tokens; t++) quantize_row(p, t);
}

/* One register tile: TILE_ROWS term rows from `row`, `blocks` registers of outputs from `block`. */
static inline __attribute__((always_inline)) void tile(const Product* p, int64_t row, int64_t block,
                                                       const int blocks) {
  __m512i sums[TILE_ROWS][TILE_BLOCKS];
  for (int r = 0; r < TILE_ROWS; r++)
    for (int b = 0; b < blocks; b++) sums[r][b] = _mm512_setzero_si512();
  const int64_t stride = p->inputs * LANES;
  const uint8_t* w = p->w + block * stride;
  const int8_t* x = p->terms + row * p->inputs;
  for (int64_t k = 0; k < p->inputs; k += 4) {
    __m512i weights[TILE_BLOCKS];
    for (int b = 0; b < blocks; b++) weights[b] = _mm512_loadu_si512(w + b * stride + k * LANES);
    for (int r = 0; r < TILE_ROWS; r++) {
      int32_t four;
      memcpy(&four, x + r * p->inputs + k, 4);
      __m512i spread = _mm512_set1_epi32(four);
      for (int b = 0; b < blocks; b++)
        sums[r][b] = _mm512_dpbusd_epi32(sums[r][b], weights[b], spread);
    }
  }
  for (int r = 0; r < TILE_ROWS; r += 2) {
    int64_t token = (row + r) / 2;
    if (token >= p->tokens) break;
    for (int b = 0; b < blocks; b++) {
      __m512i high = _mm512_sub_epi32(sums[r][b], _mm512_set1_epi32(p->excess[row + r]));
      __m512i low = _mm512_sub_epi32(sums[r + 1][b], _mm512_set1_epi32(p->excess[row + r + 1]));
      __m512 value = _mm512_mul_ps(_mm512_cvtepi32_ps(low), _mm512_set1_ps(p->step[row + r + 1]));
      value = _mm512_fmadd_ps(_mm512_cvtepi32_ps(high), _mm512_set1_ps(p->step[row + r]), value);
      value = _mm512_mul_ps(value, _mm512_loadu_ps(p->scale + (block + b) * LANES));
      _mm512_storeu_ps(p->y + token * p->outputs + (block + b) * LANES, value);
    }
  }
}

static void product_item(const Product* p, int64_t item) {
  int64_t rows = (2 * p->tokens + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS;
  int64_t last = p->outputs / LANES;
  int64_t block = item * ITEM_BLOCKS;
  int64_t end = block + ITEM_BLOCKS < last ? block + ITEM_BLOCKS : last;
  for (; block < end; block += TILE_BLOCKS) {
    int blocks = (int)(end - block < TILE_BLOCKS ? end - block : TILE_BLOCKS);
    for (int64_t row = 0; row < rows; row += TILE_ROWS) {
      if (blocks == 3) tile(p, row, block, 3);
      else if (blocks == 2) tile(p, row, block, 2);
      else tile(p, row, block, 1);
    }
  }
}

static void work(Job* job) {
  for (;;) {
    int64_t item = atomic_fetch_add(&job->next, 1);
    if (item >= job->items) break;
    job->run(job->product, item);
    atomic_fetch_add(&job->done, 1);
  }
}

static void leave(Job* job) {
  if (atomic_fetch_sub(&job->owners, 1) == 1) free(job);
}

static void task(void* data) {
  work(data);
  leave(data);
}

/* Runs `items` work items on XLA's own threads and this one; returns when all are done. */
static int parallel(const XLA_FFI_CallFrame* frame, const Product* product, int64_t items,
                    void (*run)(const Product*, int64_t)) {
  int64_t threads = 1;
  XLA_FFI_ThreadPool_NumThreads_Args count = {sizeof(count), NULL, frame->ctx, &threads};
  XLA_FFI_Error* error = frame->api->XLA_FFI_ThreadPool_NumThreads(&count);
  if (error != NULL) {
    XLA_FFI_Error_Destroy_Args destroy = {sizeof(destroy), NULL, error};
    frame->api->XLA_FFI_Error_Destroy(&destroy);
    threads = 1;
  }
  int64_t helpers = (threads < items ? threads : items) - 1;
  if (helpers <= 0) {
    for (int64_t i = 0; i < items; i++) run(product, i);
    return 0;
  }
  Job* job = malloc(sizeof(Job));
  if (job == NULL) return 1;
  job->run = run;
  job->product = product;
  job->items = items;
  atomic_init(&job->next, 0);
  atomic_init(&job->done, 0);
  atomic_init(&job->owners, (int)helpers + 1);
  for (int64_t i = 0; i < helpers; i++) {
    XLA_FFI_ThreadPool_Schedule_Args schedule = {sizeof(schedule), NULL, frame->ctx, task, job};
    error = frame->api->XLA_FFI_ThreadPool_Schedule(&schedule);
    if (error != NULL) {
      XLA_FFI_Error_Destroy_Args destroy = {sizeof(destroy), NULL, error};
      frame->api->XLA_FFI_Error_Destroy(&destroy);
      leave(job);
    }
  }
  work(job);
  while (atomic_load(&job->done) < items) _mm_pause();
  leave(job);
  return 0;
}

static XLA_FFI_Error* fail(const XLA_FFI_CallFrame* frame, const char* message) {
  XLA_FFI_Error_Create_Args args = {sizeof(args), NULL, message, XLA_FFI_Error_Code_INTERNAL};
  return frame->api->XLA_FFI_Error_Create(&args);
}

/* True when the running processor has the instructions this file was compiled for. */
int loadstone_cpu_has_vnni(void) {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
}

/* XLA FFI handler. Arguments x [M,K] f32, w [N/16,K/4,16,4] u8, scale [N] f32; result y [M,N] f32. */
XLA_FFI_Error* loadstone_int8_product(XLA_FFI_CallFrame* frame) {
  if (frame->extension_start != NULL &&
      frame->extension_start->type == XLA_FFI_Extension_Metadata) {
    XLA_FFI_Metadata* metadata = ((XLA_FFI_Metadata_Extension*)frame->extension_start)->metadata;
    metadata->api_version.major_version = XLA_FFI_API_MAJOR;
    metadata->api_version.minor_version = XLA_FFI_API_MINOR;
    return NULL;
  }
  if (frame->stage != XLA_FFI_ExecutionStage_EXECUTE) return NULL;
  if (frame->args.size != 3 || frame->rets.size != 1)
    return fail(frame, "loadstone_int8_product takes x, w, scale and gives y");
  const XLA_FFI_Buffer* x = frame->args.args[0];
  const XLA_FFI_Buffer* w = frame->args.args[1];
  const XLA_FFI_Buffer* scale = frame->args.args[2];
  const XLA_FFI_Buffer* y = frame->rets.rets[0];
  if (x->rank != 2 || w->rank != 4 || y->rank != 2 || w->dims[1] * 4 != x->dims[1] ||
      w->dims[0] * LANES != y->dims[1] || w->dims[2] != LANES || w->dims[3] != 4)
    return fail(frame, "loadstone_int8_product: shapes of x, w and y do not fit together");

  Product p = {.x = x->data, .w = w->data, .scale = scale->data, .y = y->data,
               .tokens = x->dims[0], .inputs = x->dims[1], .outputs = y->dims[1]};
  int64_t rows = (2 * p.tokens + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS;
  p.terms = calloc((size_t)(rows * p.inputs), 1);
  p.step = malloc((size_t)rows * sizeof(float));
  p.excess = malloc((size_t)rows * sizeof(int32_t));
  int failed = p.terms == NULL || p.step == NULL || p.excess == NULL;
  if (!failed) {
    failed = parallel(frame, &p, (p.tokens + QUANTIZE_ROWS - 1) / QUANTIZE_ROWS, quantize_item);
    int64_t blocks = p.outputs / LANES;
    failed |= parallel(frame, &p, (blocks + ITEM_BLOCKS - 1) / ITEM_BLOCKS, product_item);
  }
  free(p.terms);
  free(p.step);
  free(p.excess);
  return failed ? fail(frame, "loadstone_int8_product: out of host memory") : NULL;
}

typedef struct { const float* x; const float* w; float* y; int64_t tokens, inputs, outputs; } Dense;

static void dense_item(const Product* erased, int64_t item) {
  const Dense* p = (const Dense*)erased;
  int64_t last = p->outputs / LANES, end = (item + 1) * 6;
  if (end > last) end = last;
  for (int64_t block = item * 6; block < end; block++) {
    const float* w = p->w + block * p->inputs * LANES;
    for (int64_t row = 0; row < p->tokens; row += 8) {
      int rows = p->tokens - row < 8 ? (int)(p->tokens - row) : 8;
      const float* x[8];
      __m512 sums[8];
      for (int r = 0; r < 8; r++) {
        x[r] = p->x + (row + (r < rows ? r : 0)) * p->inputs;
        sums[r] = _mm512_setzero_ps();
      }
      for (int64_t k = 0; k < p->inputs; k++) {
        __m512 weights = _mm512_loadu_ps(w + k * LANES);
        for (int r = 0; r < 8; r++)
          sums[r] = _mm512_fmadd_ps(_mm512_set1_ps(x[r][k]), weights, sums[r]);
      }
      for (int r = 0; r < rows; r++)
        _mm512_storeu_ps(p->y + (row + r) * p->outputs + block * LANES, sums[r]);
    }
  }
}

XLA_FFI_Error* loadstone_f32_product(XLA_FFI_CallFrame* frame) {
  if (frame->extension_start != NULL &&
      frame->extension_start->type == XLA_FFI_Extension_Metadata) {
    XLA_FFI_Metadata* metadata = ((XLA_FFI_Metadata_Extension*)frame->extension_start)->metadata;
    metadata->api_version.major_version = XLA_FFI_API_MAJOR;
    metadata->api_version.minor_version = XLA_FFI_API_MINOR;
    return NULL;
  }
  if (frame->stage != XLA_FFI_ExecutionStage_EXECUTE) return NULL;
  const XLA_FFI_Buffer* x = frame->args.args[0];
  const XLA_FFI_Buffer* w = frame->args.args[1];
  const XLA_FFI_Buffer* y = frame->rets.rets[0];
  Dense p = {x->data, w->data, y->data, x->dims[0], x->dims[1], y->dims[1]};
  if (parallel(frame, (const Product*)&p, (p.outputs / LANES + 5) / 6, dense_item))
    return fail(frame, "out of host memory");
  return NULL;
}
