#include "cpu_threads.h"

#include <immintrin.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#define SPINS 1000 /* then a waiting thread gives its core away */

/* Items first..end-1 that one thread owns. It takes them from the front, others steal from the
 * back: memory is read in order, and a thread that comes late delays nobody. */
typedef struct {
  _Alignas(LINE) _Atomic uint64_t span; /* end << 32 | first */
} Range;

struct Job {
  Task task;
  void* data; /* behind the ranges, in the same piece of memory */
  int64_t threads;
  _Alignas(LINE) _Atomic int64_t next_preparation;
  _Atomic int64_t prepared;
  _Alignas(LINE) _Atomic int64_t items_left;
  _Atomic int joined, owners; /* a helper may start after the caller left: the last frees the job */
  Range ranges[];
};

Job* new_job(const XLA_FFI_CallFrame* frame, Task task, int64_t bytes) {
  const int64_t threads = least(count_threads(frame), task.items);
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

void* data_of(Job* job) { return job->data; }

static int take(Range* range, int from_front, int64_t* item) {
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
static void relax(int spins) {
  if (spins < SPINS) _mm_pause();
  else sched_yield();
}

static void work(Job* job) {
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

static void leave(Job* job) {
  if (atomic_fetch_sub(&job->owners, 1) == 1) free(job);
}

static void help(void* job) {
  work(job);
  leave(job);
}

static void drop(const XLA_FFI_CallFrame* frame, XLA_FFI_Error* error) {
  XLA_FFI_Error_Destroy_Args args = {sizeof(args), NULL, error};
  frame->api->XLA_FFI_Error_Destroy(&args);
}

int64_t count_threads(const XLA_FFI_CallFrame* frame) {
  int64_t threads = 1;
  XLA_FFI_ThreadPool_NumThreads_Args args = {sizeof(args), NULL, frame->ctx, &threads};
  XLA_FFI_Error* error = frame->api->XLA_FFI_ThreadPool_NumThreads(&args);
  if (error == NULL) return threads;
  drop(frame, error); /* no pool: the caller does it all */
  return 1;
}

void run_job(const XLA_FFI_CallFrame* frame, Job* job) {
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

XLA_FFI_Error* run_task(const XLA_FFI_CallFrame* frame, Task task, const void* data,
                        int64_t bytes) {
  if (task.items == 0) return NULL;
  Job* job = new_job(frame, task, bytes);
  if (job == NULL) return fail(frame, "a CPU kernel is out of host memory");
  memcpy(data_of(job), data, (size_t)bytes);
  run_job(frame, job);
  return NULL;
}
