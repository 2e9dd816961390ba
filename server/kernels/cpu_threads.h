/* What the CPU kernels share: work spread over XLA's own threads, and XLA's FFI as they need it. */
#ifndef LOADSTONE_CPU_THREADS_H_
#define LOADSTONE_CPU_THREADS_H_

#include <immintrin.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "xla/ffi/api/c_api.h"

#define LINE 64    /* bytes that memory moves at once */
#define SPINS 1000 /* then a waiting thread gives its core away */

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

/* Items first..end-1 that one thread owns. It takes them from the front, others steal from the
 * back: memory is read in order, and a thread that comes late delays nobody. */
typedef struct {
  _Alignas(LINE) _Atomic uint64_t span; /* end << 32 | first */
} Range;

typedef struct {
  Task task;
  void* data; /* behind the ranges, in the same piece of memory */
  int64_t threads;
  _Alignas(LINE) _Atomic int64_t next_preparation;
  _Atomic int64_t prepared;
  _Alignas(LINE) _Atomic int64_t items_left;
  _Atomic int joined, owners; /* a helper may start after the caller left: the last frees the job */
  Range ranges[];
} Job;

static inline int64_t round_up(int64_t bytes) { return (bytes + LINE - 1) / LINE * LINE; }

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* A job with `bytes` of memory for its data, which lives as long as any thread looks at it. */
static inline Job* new_job(Task task, int64_t threads, int64_t bytes) {
  threads = least(threads, task.items);
  const int64_t head = round_up(sizeof(Job) + threads * sizeof(Range));
  Job* job = aligned_alloc(LINE, (size_t)(head + round_up(bytes)));
  if (job == NULL) return NULL;
  job->task = task;
  job->data = (char*)job + head;
  job->threads = threads;
  atomic_init(&job->next_preparation, 0);
  atomic_init(&job->prepared, 0);
  atomic_init(&job->items_left, task.items);
  atomic_init(&job->joined, 0);
  atomic_init(&job->owners, (int)threads);
  for (int64_t i = 0; i < threads; i++) {
    const uint64_t first = (uint64_t)(task.items * i / threads);
    const uint64_t end = (uint64_t)(task.items * (i + 1) / threads);
    atomic_init(&job->ranges[i].span, end << 32 | first);
  }
  return job;
}

static inline int take(Range* range, int from_front, int64_t* item) {
  uint64_t span = atomic_load(&range->span);
  for (;;) {
    const uint32_t first = (uint32_t)span, end = (uint32_t)(span >> 32);
    if (first >= end) return 0;
    const uint64_t rest = from_front ? span + 1 : span - (1ull << 32);
    if (atomic_compare_exchange_weak(&range->span, &span, rest)) {
      *item = from_front ? first : end - 1;
      return 1;
    }
  }
}

/* A wait is mostly shorter than a microsecond, unless the other thread lost its core. */
static inline void relax(int spins) {
  if (spins < SPINS) _mm_pause();
  else sched_yield();
}

static inline void work(Job* job) {
  const Task* task = &job->task;
  const int64_t number = atomic_fetch_add(&job->joined, 1);
  Self self = {(uint32_t)atomic_load(&job->ranges[number].span), NULL, NULL};
  for (int64_t i; (i = atomic_fetch_add(&job->next_preparation, 1)) < task->preparations;) {
    task->prepare(job->data, i, &self);
    atomic_fetch_add(&job->prepared, 1);
  }
  for (int n = 0; atomic_load(&job->prepared) < task->preparations; n++) relax(n);
  for (int64_t i = 0; i < job->threads; i++)
    for (int64_t item; take(&job->ranges[(number + i) % job->threads], i == 0, &item);) {
      task->item(job->data, item);
      atomic_fetch_sub(&job->items_left, 1);
    }
}

static inline void leave(Job* job) {
  if (atomic_fetch_sub(&job->owners, 1) == 1) free(job);
}

static inline void help(void* job) {
  work(job);
  leave(job);
}

static inline void drop(const XLA_FFI_CallFrame* frame, XLA_FFI_Error* error) {
  XLA_FFI_Error_Destroy_Args args = {sizeof(args), NULL, error};
  frame->api->XLA_FFI_Error_Destroy(&args);
}

static inline int64_t count_threads(const XLA_FFI_CallFrame* frame) {
  int64_t threads = 1;
  XLA_FFI_ThreadPool_NumThreads_Args args = {sizeof(args), NULL, frame->ctx, &threads};
  XLA_FFI_Error* error = frame->api->XLA_FFI_ThreadPool_NumThreads(&args);
  if (error == NULL) return threads;
  drop(frame, error); /* no pool: the caller does it all */
  return 1;
}

/* Runs the job on XLA's threads and this one, returns when all of it is done, and lets go of it. */
static inline void run(const XLA_FFI_CallFrame* frame, Job* job) {
  for (int64_t i = 1; i < job->threads; i++) {
    XLA_FFI_ThreadPool_Schedule_Args args = {sizeof(args), NULL, frame->ctx, help, job};
    XLA_FFI_Error* error = frame->api->XLA_FFI_ThreadPool_Schedule(&args);
    if (error == NULL) continue;
    drop(frame, error);
    leave(job);
  }
  work(job);
  for (int n = 0; atomic_load(&job->items_left) > 0; n++) relax(n);
  leave(job);
}

static inline XLA_FFI_Error* fail(const XLA_FFI_CallFrame* frame, const char* message) {
  XLA_FFI_Error_Create_Args args = {sizeof(args), NULL, message, XLA_FFI_Error_Code_INTERNAL};
  return frame->api->XLA_FFI_Error_Create(&args);
}

/* Runs a task whose data is a copy of `data`. */
static inline XLA_FFI_Error* run_task(const XLA_FFI_CallFrame* frame, Task task, const void* data,
                                      int64_t bytes) {
  if (task.items == 0) return NULL;
  Job* job = new_job(task, count_threads(frame), bytes);
  if (job == NULL) return fail(frame, "a CPU kernel is out of host memory");
  memcpy(job->data, data, (size_t)bytes);
  run(frame, job);
  return NULL;
}

/* A float32 attribute of the call; NaN if there is none of that name. */
static inline float attribute(const XLA_FFI_CallFrame* frame, const char* name) {
  for (int64_t i = 0; i < frame->attrs.size; i++) {
    const XLA_FFI_ByteSpan* own = frame->attrs.names[i];
    if (own->len != strlen(name) || memcmp(own->ptr, name, own->len)) continue;
    const XLA_FFI_Scalar* scalar = frame->attrs.attrs[i];
    if (scalar->dtype == XLA_FFI_DataType_F32) return *(const float*)scalar->value;
  }
  return __builtin_nanf("");
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
