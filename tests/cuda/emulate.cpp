// The emulator's scheduler: every thread of a block is a fiber; see emulate.h.

#include "emulate.h"

#include <setjmp.h>
#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <vector>

#include "../../csrc/cpu/simd.h"

namespace pgest::emulated {

Index thread, block, threads, blocks;

namespace {

constexpr size_t kStack = 128 << 10;

struct Lane {
  bool started = false;
  jmp_buf place;  // where it goes on
  std::unique_ptr<char[]> stack{new char[kStack]};
  bool done = true;
  int64_t exchanges = 0;  // that it has given a word to
  uint64_t words[2];      // of the last two exchanges
  unsigned masks[2];
};

std::mutex running;  // one launch at a time
std::vector<Lane> lanes(1024);
jmp_buf scheduler;
int current = 0;
int at_barrier = 0;      // threads that wait at it
int64_t barriers = 0;    // that all have passed
bool progress = false;
bool backwards = false;
Refusal refused;
Body body_now;
void (*kernel_now)();
const void* args_now;

[[noreturn]] void stop(const char* what) {
  std::fprintf(stderr, "emulated CUDA: %s (block %d, thread %d)\n", what, block.x, current);
  std::abort();
}

// From one stack to another. setjmp and longjmp make no system call, as swapcontext would.
void to_scheduler() {
  if (_setjmp(lanes[current].place) == 0) _longjmp(scheduler, 1);
}

template <class Ready>
void wait_until(const Ready& ready) {
  while (!ready()) to_scheduler();
  progress = true;
}

// A fiber's whole life: the same thread of one block after another.
void live() {
  for (;;) {
    try {
      body_now(kernel_now, args_now);
    } catch (const Refusal& refusal) {
      if (refused.kind == Refusal::none || refusal.row < refused.row) refused = refusal;
    }
    lanes[current].done = true;
    progress = true;
    to_scheduler();
  }
}

void step(int at) {
  current = thread.x = at;
  Lane& lane = lanes[at];
  if (_setjmp(scheduler) != 0) return;
  if (lane.started) _longjmp(lane.place, 1);
  lane.started = true;
  ucontext_t fresh;
  getcontext(&fresh);
  fresh.uc_stack.ss_sp = lane.stack.get();
  fresh.uc_stack.ss_size = kStack;
  fresh.uc_link = nullptr;
  makecontext(&fresh, live, 0);
  setcontext(&fresh);
}

// After a refusal the rest of a block may wait forever for the thread that refused: it is given up.
void give_up() {
  for (int t = 0; t < threads.x; ++t) lanes[t].started = lanes[t].started && lanes[t].done;
}

void run_block() {
  for (int t = 0; t < threads.x; ++t) {
    lanes[t].done = false;
    lanes[t].exchanges = 0;
  }
  at_barrier = 0;
  for (;;) {
    progress = false;
    bool left = false;
    for (int k = 0; k < threads.x; ++k) {
      const int t = backwards ? threads.x - 1 - k : k;
      if (lanes[t].done) continue;
      left = true;
      step(t);
    }
    if (!left) return;
    if (!progress && refused.kind != Refusal::none) return give_up();
    if (!progress) stop("threads wait for others that never come");
  }
}

}  // namespace

// A thread that ended, or waits elsewhere, never comes: then nobody gets on, which run_block sees.
void sync_threads() {
  const int64_t mine = barriers;
  if (++at_barrier == threads.x) {
    at_barrier = 0;
    ++barriers;
  }
  wait_until([&] { return barriers > mine; });
}

uint64_t exchange(unsigned mask, uint64_t word, int from) {
  const int warp = current / 32 * 32;
  Lane& me = lanes[current];
  const int64_t mine = me.exchanges++;
  me.words[mine % 2] = word;
  me.masks[mine % 2] = mask;
  if (!(mask >> (current % 32) & 1u) || !(mask >> from & 1u)) stop("a shuffle's mask lacks a lane that it needs");
  wait_until([&] {
    for (int l = 0; l < 32; ++l)
      if (mask >> l & 1u && lanes[warp + l].exchanges <= mine) return false;
    return true;
  });
  const Lane& other = lanes[warp + from];
  if (other.masks[mine % 2] != mask) stop("lanes of a shuffle give different masks");
  return other.words[mine % 2];
}

void sync_lanes(unsigned mask) { exchange(mask, 0, current % 32); }

const char* run(Body body, void (*kernel)(), const Geometry& g, const void* args) {
  const std::lock_guard<std::mutex> lock(running);
  body_now = body;
  kernel_now = kernel;
  args_now = args;
  threads.x = g.threads;
  blocks.x = static_cast<int>(g.blocks);
  backwards = !backwards;
  for (block.x = 0; block.x < blocks.x; ++block.x) run_block();
  return nullptr;
}

Refusal take_refusal() {
  const Refusal taken = refused;
  refused = Refusal{};
  return taken;
}

void refuse(const Refusal& refusal) { throw refusal; }

float value_of_bfloat16(uint16_t bits) { return to_float(BFloat16{bits}); }
float value_of_half(uint16_t bits) { return to_float(Half{bits}); }
uint16_t bfloat16_of(float x) {
  BFloat16 y;
  round_to(y, x);
  return y.bits;
}
uint16_t half_of(float x) {
  Half y;
  round_to(y, x);
  return y.bits;
}

}  // namespace pgest::emulated
