// Hypotheses spread over threads, where there is work enough for them.
#pragma once

#include <exception>
#include <thread>

#include "positions.h"

namespace pgest::text {

// What a thread must have to do before it is worth its start, which takes up to 200 microseconds with the
// memory that it touches first; in nanoseconds.
constexpr double kGrain = 400e3;

// Calls work(begin, end) on consecutive ranges of [0, size), each on a thread of its own.
template <class Work>
void spread(int64_t size, double nanoseconds, int most_threads, Work work) {
  const int64_t worth = int64_t(std::min(nanoseconds / kGrain, 1024.0));
  const int64_t threads = std::clamp<int64_t>(std::min<int64_t>(most_threads, worth), 1, std::max<int64_t>(size, 1));
  if (threads == 1) return work(int64_t(0), size);
  std::vector<std::exception_ptr> errors(threads);
  const auto part = [&](int64_t t) {
    try {
      work(size * t / threads, size * (t + 1) / threads);
    } catch (...) {
      errors[t] = std::current_exception();
    }
  };
  std::vector<std::thread> others;
  others.reserve(threads - 1);
  int64_t started = 1;
  try {
    for (; started < threads; ++started) others.emplace_back(part, started);
  } catch (const std::system_error&) {  // no more threads to be had: the rest is done here
  }
  part(0);
  for (int64_t t = started; t < threads; ++t) part(t);
  for (std::thread& other : others) other.join();
  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);
}

// Calls a worker for each hypothesis: worker(positions, group, hypothesis, i), with the sets of its group's
// references, which are built once for all samples. `make()` gives each thread a worker of its own.
template <class Make>
void for_hypotheses(const Batch& batch, double nanoseconds_per_token, Make make) {
  const int64_t groups = batch.groups(), samples = batch.samples();
  const double tokens = double(batch.hypotheses.ids.size() + batch.references.ids.size());
  const double nanoseconds = tokens * nanoseconds_per_token + 50.0 * double(batch.hypotheses.size());
  spread(groups * samples, nanoseconds, batch.threads, [&](int64_t begin, int64_t end) {
    auto worker = make();
    Positions positions;
    int64_t built = -1;
    for (int64_t k = begin; k < end; ++k) {  // a group's samples one after the other
      const int64_t group = k / samples, i = k % samples * groups + group;
      if (group != built) positions.build(batch.references, batch.starts[group], batch.starts[group + 1]);
      built = group;
      worker(positions, group, batch.hypotheses[i], i);
    }
  });
}

}  // namespace pgest::text
