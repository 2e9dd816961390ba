/* What the weight products share: their data, and the one loop in `cpu_products.c`. */
#ifndef LOADSTONE_CPU_PRODUCTS_H_
#define LOADSTONE_CPU_PRODUCTS_H_

#include "cpu_math.h"
#include "cpu_threads.h"

#define TILE_ROWS 8
#define TILE_BLOCKS 3
#define CHUNK_GROUPS 16 /* groups of inputs with scales of their own in a chunk, at most */
#define LARGEST_FLOOR 1e-30f /* keeps 127 / largest finite */

/* How a line is stored and multiplied. */
typedef enum { INT8, F32, BF16, INT4, NF4, FP8, KINDS } Kind;

typedef struct Product Product;

/* What 4-bit codes need; see `cpu_codes.c`. */
typedef struct {
  int64_t block;        /* inputs that share a scale: a group */
  int64_t groups;       /* of a row */
  __m512i high, low;    /* nf4: the table as two bytes a code, four times over */
  float factor;         /* of all scales */
  const float* scales;  /* [N/16, groups, 16], or NULL where they are coded: */
  const uint8_t* ranks; /* [N/16, groups, 16]: level[rank] * spread + mean */
  const float *levels, *spreads, *mean; /* [256], [spread_count], [1] */
  int64_t spread_count;
} Codes;

/* Inputs in which any row reaches the threshold; see `cpu_outliers.c`. */
typedef struct {
  float threshold;
  const __mmask16* masks; /* [inputs/16, rounded up]: these inputs */
  const int32_t* inputs;  /* [count]: these inputs */
  const float* values;    /* [tokens, count]: what x is there */
  int64_t count;
} Outliers;

struct Product {
  Kind kind;
  int terms;              /* rows of units that a row of x becomes */
  const float *x, *scale; /* scale [N]; NULL: none */
  float factor;           /* of all scales */
  const uint8_t* w;
  float* y;
  int64_t tokens, inputs, outputs; /* tokens: rows of x; later those that are not zero */
  int64_t blocks;                  /* of 16 outputs; the last may have more of them than y */
  const Codes* codes;       /* INT4 and NF4 */
  const Outliers* outliers; /* NULL: none */
  char* scratch;            /* memory that XLA knows of, as `cpu.py` counts it */
  int64_t scratch_bytes;
  /* `run_product` fills in the rest. */
  int64_t rows, tiles, steps; /* rows and tiles of units, steps of a line sequence */
  int64_t chunk;              /* steps at a time */
  int64_t item_blocks;        /* blocks of outputs in a work item, at most TILE_BLOCKS */
  int64_t columns;            /* work items side by side over the outputs */
  int64_t groups;             /* of inputs with an excess of their own */
  int32_t* units;
  float* step;     /* [rows]: what one int8 of the row is worth */
  int32_t* excess; /* [rows, groups]: what unsigned weights have too much, negative */
  int32_t* order;  /* rows of x: first `tokens` that are in tiles, then `idle` zero ones */
  int64_t idle;
};

/* Some steps of up to TILE_ROWS rows of units and TILE_BLOCKS blocks of outputs. */
typedef struct {
  const int32_t* units; /* [steps][rows] */
  const uint8_t* lines; /* of the first block */
  int64_t stride;       /* bytes from block to block */
  int64_t steps;
  int fresh;     /* sums are not set yet and begin at zero */
  __m512i* sums; /* [rows][TILE_BLOCKS]; float32 but for INT8 */
  /* INT8, F32 and BF16: lines to fetch for later, laid out alike, one step in `every` steps; 0: none. */
  const uint8_t* ahead;
  int64_t every;
  /* FP8: where the lines go as float32, laid out as `[blocks][stored]`, or NULL. */
  float* store;
  int64_t stored;
  /* INT4 and NF4, whose steps are those of one group of inputs: */
  const int32_t* excess; /* [rows, excess_stride] */
  int64_t excess_stride;
  const __m512* scales; /* [TILE_BLOCKS] */
} Tile;

/* cpu_tiles.c: by kind, rows and blocks; int8 in two terms has even rows alone. */
typedef void (*AddTile)(const Tile*);
extern const AddTile add_tile[KINDS][TILE_ROWS + 1][TILE_BLOCKS + 1];

/* cpu_bf16.c: the same for BF16, by rows and blocks. */
extern const AddTile add_bf16[TILE_ROWS + 1][TILE_BLOCKS + 1];

/* cpu_bf16.c: `rows` of the rows in tiles, from `row` on, to units. */
void prepare_bf16(const Product* p, int64_t row, int64_t rows, int32_t* units, Self* self);

/* Fetches the next of the lines that `aim` in cpu_products.c chose. */
static inline void fetch_line(Self* self) {
  if (self->fetch >= self->fetch_end) return;
  _mm_prefetch(self->fetch, _MM_HINT_T1);
  self->fetch += LINE;
}

/* cpu_codes.c: `count` steps of codes of a block as lines, of which a step of NF4 has two. */
void decode(const Product* p, int64_t block, int64_t step, int64_t count, uint8_t* lines);

/* cpu_codes.c: the scales of 16 outputs for a group of inputs. */
__m512 scales_of(const Product* p, int64_t block, int64_t group);

/* cpu_outliers.c: max|x| of what is below the threshold; NaN if there is one. */
float largest_below(const float* x, int64_t count, float threshold);

/* cpu_outliers.c: adds what the outliers of some tokens give to 16 outputs, before their scales. */
void add_outliers(const Product* p, int64_t token, int tokens, int64_t block, __m512* values);

/* y of a product whose first part is filled in. */
XLA_FFI_Error* run_product(const XLA_FFI_CallFrame* frame, Product p);

/* x, w, y and scratch of a call with so many arguments, as of a product of one int8 term. Returns
 * whether they are what every product has. */
int read_product(const XLA_FFI_CallFrame* frame, int64_t arguments, Product* p);

/* The same with the int8 weight and its scale. */
int read_int8(const XLA_FFI_CallFrame* frame, Product* p);

/* Whether an argument is an array of this type and these axes. */
int holds(const XLA_FFI_CallFrame* frame, int64_t argument, XLA_FFI_DataType type, int64_t rank,
          const int64_t* dims);

XLA_FFI_Error* misfit(const XLA_FFI_CallFrame* frame);

#endif
