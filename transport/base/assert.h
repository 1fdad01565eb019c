// TBT_ASSERT stops the process on a programmer's error, in every build. TBT_DCHECK is for hot paths
// and is compiled out of release builds. Neither is ever used on user arguments or on wire bytes.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace tbt::base {

[[noreturn]] inline void assert_failed(const char* what, const char* file, int line) noexcept {
  std::fprintf(stderr, "tbt: assertion failed: %s (%s:%d)\n", what, file, line);
  std::abort();
}

}  // namespace tbt::base

#define TBT_ASSERT(condition) \
  (__builtin_expect(!!(condition), 1) ? (void)0 : ::tbt::base::assert_failed(#condition, __FILE__, __LINE__))

#ifdef NDEBUG
#define TBT_DCHECK(condition) ((void)0)
#else
#define TBT_DCHECK(condition) TBT_ASSERT(condition)
#endif
