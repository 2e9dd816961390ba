/* What the CPU kernels share: work spread over XLA's own threads, and XLA's FFI as they need it. */
#ifndef LOADSTONE_CPU_THREADS_H_
#define LOADSTONE_CPU_THREADS_H_

#include <stdint.h>
#include <string.h>

#include "xla/ffi/api/c_api.h"

#define LINE 64 /* bytes that memory moves at once */

/* What a thread knows of itself while it works on a job. */
typedef struct {
  int64_t first_item;           /* the item it is going to start with */
  const char *fetch, *fetch_end; /* for `prepare` to use; NULL at first */
} Self;

/* `prepare` runs for 0..preparations-1, then `item` for 0..items-1, each on any thread. */
typedef struct {
  void (*prepare)(const void* data, int64_t index, Self* self);
  void (*item)(const void* data, int64_t index);
  int64_t preparations, items;
} Task;

typedef struct Job Job;

/* A job whose data is `bytes` of memory, not set; NULL when there is no memory for it. */
Job* new_job(const XLA_FFI_CallFrame* frame, Task task, int64_t bytes);

void* data_of(Job* job);

/* Runs the job on XLA's threads and this one, returns when all of it is done, and lets go of it. */
void run_job(const XLA_FFI_CallFrame* frame, Job* job);

/* Runs a task whose data is a copy of `data`. */
XLA_FFI_Error* run_task(const XLA_FFI_CallFrame* frame, Task task, const void* data, int64_t bytes);

/* How many threads there are for a job, this one included. */
int64_t count_threads(const XLA_FFI_CallFrame* frame);

static inline int64_t round_up(int64_t bytes) { return (bytes + LINE - 1) / LINE * LINE; }

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static inline XLA_FFI_Error* fail(const XLA_FFI_CallFrame* frame, const char* message) {
  XLA_FFI_Error_Create_Args args = {sizeof(args), NULL, message, XLA_FFI_Error_Code_INTERNAL};
  return frame->api->XLA_FFI_Error_Create(&args);
}

/* An attribute of the call by its name and kind; NULL if there is none. */
static inline const void* find_attribute(const XLA_FFI_CallFrame* frame, const char* name,
                                         XLA_FFI_AttrType kind) {
  for (int64_t i = 0; i < frame->attrs.size; i++) {
    const XLA_FFI_ByteSpan* own = frame->attrs.names[i];
    if (own->len == strlen(name) && !memcmp(own->ptr, name, own->len))
      return frame->attrs.types[i] == kind ? frame->attrs.attrs[i] : NULL;
  }
  return NULL;
}

/* A float32; NaN if there is none of that name. */
static inline float attribute(const XLA_FFI_CallFrame* frame, const char* name) {
  const XLA_FFI_Scalar* scalar = find_attribute(frame, name, XLA_FFI_AttrType_SCALAR);
  if (scalar == NULL || scalar->dtype != XLA_FFI_DataType_F32) return __builtin_nanf("");
  return *(const float*)scalar->value;
}

/* An int32; -1 if there is none of that name. */
static inline int64_t whole_attribute(const XLA_FFI_CallFrame* frame, const char* name) {
  const XLA_FFI_Scalar* scalar = find_attribute(frame, name, XLA_FFI_AttrType_SCALAR);
  if (scalar == NULL || scalar->dtype != XLA_FFI_DataType_S32) return -1;
  return *(const int32_t*)scalar->value;
}

/* `count` float32; NULL if there are none of that name and number. */
static inline const float* attributes(const XLA_FFI_CallFrame* frame, const char* name,
                                      int64_t count) {
  const XLA_FFI_Array* array = find_attribute(frame, name, XLA_FFI_AttrType_ARRAY);
  if (array == NULL || array->dtype != XLA_FFI_DataType_F32) return NULL;
  return array->size == (size_t)count ? array->data : NULL;
}

static inline int is_array(const XLA_FFI_Buffer* x, XLA_FFI_DataType type, int64_t rank) {
  return x != NULL && x->dtype == type && x->rank == rank;
}

/* Whether a call of a handler is one to compute; XLA also asks for versions and announces. */
static inline int executes(XLA_FFI_CallFrame* frame) {
  XLA_FFI_Extension_Base* extension = frame->extension_start;
  if (extension == NULL || extension->type != XLA_FFI_Extension_Metadata)
    return frame->stage == XLA_FFI_ExecutionStage_EXECUTE;
  XLA_FFI_Metadata* metadata = ((XLA_FFI_Metadata_Extension*)extension)->metadata;
  metadata->api_version.major_version = XLA_FFI_API_MAJOR;
  metadata->api_version.minor_version = XLA_FFI_API_MINOR;
  return 0;
}

#endif
