// Runs random cases of every kernel until the time is over: `fuzz [seconds] [first seed]`. With
// seconds 0 it runs the one case of that seed.

#include <sanitizer/common_interface_defs.h>

#include <chrono>

#include "fuzz.h"

namespace fuzz {
namespace {

struct Target {
  const char* name;
  void (*run)(Random&);
};

constexpr Target kTargets[] = {
    {"token_stats", token_stats},       {"row_threshold", row_threshold},
    {"sample", sample},                 {"gumbel_softmax", gumbel_softmax},
    {"straight_through", straight_through}, {"bits", bits_of_rows},
    {"text", text_metrics},
};

uint64_t current_seed = 0;
const char* current_name = "";

void run(uint64_t seed) {
  Random random(seed);
  const int64_t last = static_cast<int64_t>(std::size(kTargets)) - 1;
  const Target& target = kTargets[random.integer(0, last)];
  current_seed = seed;
  current_name = target.name;
  target.run(random);
}

// What a sanitizer prints when it stops the run does not name the case.
void name_case() {
  std::fprintf(stderr, "fuzz: %s; repeat with: build/fuzz 0 %llu\n", current_name,
               static_cast<unsigned long long>(current_seed));
}

}  // namespace

void fail(const std::string& what) {
  std::fprintf(stderr, "fuzz: %s\n", what.c_str());
  name_case();
  std::abort();
}

}  // namespace fuzz

int main(int argc, char** argv) {
  __sanitizer_set_death_callback(fuzz::name_case);
  const double seconds = argc > 1 ? std::atof(argv[1]) : 20;
  uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 0;
  const auto start = std::chrono::steady_clock::now();
  const auto elapsed = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  uint64_t cases = 0;
  do {
    fuzz::run(seed++);
    ++cases;
  } while (elapsed() < seconds);
  std::printf("fuzz: %llu cases of %zu kernels, nothing found\n",
              static_cast<unsigned long long>(cases), std::size(fuzz::kTargets));
}
