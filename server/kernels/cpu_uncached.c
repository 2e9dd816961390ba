/* Attention of whole rows to themselves, without a cache, for x86 CPUs with AVX-512, called through
 * XLA's FFI. It turns queries and keys to their positions and attends as for a first chunk.
 *
 *   loadstone_uncached_attention(qkv, cos, sin, lengths) -> out, scratch
 *
 * All float32. Row n has lengths[n] tokens, each of which sees the last `window`, itself included;
 * behind them out is zero. `scratch` holds the keys and values as they are laid out for products:
 * memory that XLA knows of.
 */
#include "cpu_cache.h"

static int fit_together(XLA_FFI_Buffer** args, XLA_FFI_Buffer** rets) {
  const XLA_FFI_Buffer* qkv = args[0];
  if (!is_array(qkv, XLA_FFI_DataType_F32, 5) || !is_array(args[3], XLA_FFI_DataType_S32, 1) ||
      !is_array(rets[0], XLA_FFI_DataType_F32, 5) || !is_array(rets[1], XLA_FFI_DataType_F32, 1))
    return 0;
  for (int i = 1; i < 3; i++)
    if (!is_array(args[i], XLA_FFI_DataType_F32, 3) || memcmp(args[i]->dims, qkv->dims, 16) ||
        2 * args[i]->dims[2] != qkv->dims[4])
      return 0;
  const int64_t head = qkv->dims[4];
  return args[3]->dims[0] == qkv->dims[0] && qkv->dims[3] > 2 && head % LANES == 0 &&
         head <= MAX_HEAD;
}

XLA_FFI_Error* loadstone_uncached_attention(XLA_FFI_CallFrame* frame) {
  if (!executes(frame)) return NULL;
  XLA_FFI_Buffer** args = (XLA_FFI_Buffer**)frame->args.args;
  XLA_FFI_Buffer** rets = (XLA_FFI_Buffer**)frame->rets.rets;
  if (frame->args.size != 4 || frame->rets.size != 2 || !fit_together(args, rets))
    return fail(frame, "CPU attention without a cache: the arrays do not fit together");
  const XLA_FFI_Buffer* qkv = args[0];
  const int64_t heads = qkv->dims[2], group = qkv->dims[3] - 2;
  const Attention a = {.qkv = qkv->data, .cos = args[1]->data, .sin = args[2]->data,
                       .lengths = args[3]->data, .out = rets[0]->data,
                       .scale = attribute(frame, "scale"),
                       .slopes = attributes(frame, "slopes", heads * group),
                       .rows = qkv->dims[0], .tokens = qkv->dims[1], .heads = heads,
                       .group = group, .head = qkv->dims[4],
                       .length = whole_attribute(frame, "window")};
  if (a.slopes == NULL && frame->attrs.size > 2)
    return fail(frame, "CPU attention: slopes are one float32 for each query head");
  if (a.length < 1) return fail(frame, "CPU attention: the window is at least 1");
  if (rets[1]->dims[0] != laid_floats(&a))
    return fail(frame, "CPU attention without a cache: the scratch memory is of another size");
  if (a.rows * a.tokens == 0) return NULL;
  return attend_rows(frame, &a, rets[1]->data);
}
