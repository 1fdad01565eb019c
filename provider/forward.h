// The real libibverbs: objects that are not ours go to it unchanged.
//
// Our library names the real one by absolute path among its dependencies, so it is always loaded
// beside us, and everything that we do not define is found in it without a word from us. This
// header is for the functions that both define: a verb asks whether the object is ours and, if not,
// ends with TBT_FORWARD.
#pragma once

#include <atomic>
#include <cerrno>

namespace tbt::provider {

// The default version of `name` in the real library; nullptr when that library is too old to have
// it.
void* real_symbol(const char* name) noexcept;

// A function of the real library, looked up when it is first needed. What was not found is looked
// for again: memory may have been short.
template <typename Function>
class RealFunction {
 public:
  constexpr explicit RealFunction(const char* name) noexcept : name_(name) {}
  Function get() noexcept {
    Function found = found_.load(std::memory_order_acquire);
    if (found == nullptr) {
      found = reinterpret_cast<Function>(real_symbol(name_));
      found_.store(found, std::memory_order_release);
    }
    return found;
  }

 private:
  const char* name_;
  std::atomic<Function> found_{nullptr};
};

}  // namespace tbt::provider

// Returns from the calling verb with what the real `function` returns, or with `failure` if there
// is none.
#define TBT_FORWARD(function, failure, ...)                                                   \
  do {                                                                                        \
    static constinit ::tbt::provider::RealFunction<decltype(&::function)> forward(#function); \
    const auto forward_to = forward.get();                                                    \
    if (forward_to == nullptr) {                                                              \
      errno = EOPNOTSUPP;                                                                     \
      return failure;                                                                         \
    }                                                                                         \
    return forward_to(__VA_ARGS__);                                                           \
  } while (false)
