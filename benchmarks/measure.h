// What the benchmark programs share: pinning, time, medians, and one JSON line per result on stdout.
#pragma once

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace tbt::bench {

// Ends the program with a message when something that must work does not.
[[noreturn]] inline void fail(const char* what) {
  std::perror(what);
  std::exit(1);
}
inline void require(bool good, const char* what) {
  if (!good) fail(what);
}

// The whole process, threads to come included, runs on one processor from here on.
inline void pin_to(int cpu) {
  if (cpu < 0) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<size_t>(cpu), &set);
  require(sched_setaffinity(0, sizeof set, &set) == 0, "sched_setaffinity");
}

inline double now_s() {
  const auto since = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double>(since).count();
}

inline double median(std::vector<double> values) {
  require(!values.empty(), "no samples");
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

inline void report(const char* test, size_t bytes, double value) {
  std::printf("{\"test\": \"%s\", \"bytes\": %zu, \"value\": %.6g}\n", test, bytes, value);
  std::fflush(stdout);
}

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Repeats `run(count)`, which returns seconds, with a count that makes one repetition last about
// `seconds_each`, and returns the median seconds per count. Slow things are found out by a small first try.
template <typename Run>
double seconds_per_count(Run run, size_t first, size_t most, double seconds_each, int repeats) {
  const double tried = run(first) / static_cast<double>(first);
  const double wanted = seconds_each / std::max(tried, 1e-9);
  const size_t count = std::clamp(static_cast<size_t>(wanted), first, most);
  std::vector<double> samples;
  for (int i = 0; i < repeats; ++i) samples.push_back(run(count) / static_cast<double>(count));
  return median(samples);
}

}  // namespace tbt::bench
