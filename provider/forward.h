// The real libibverbs: objects that are not ours go to it unchanged.
//
// Our library names the real one by absolute path among its dependencies, so it is always loaded
// beside us, and everything that we do not define is found in it without a word from us. This
// header is for the functions that both define: a verb asks whether the object is ours and, if not,
// ends with TBT_FORWARD.
#pragma once

#include <cerrno>

namespace tbt::provider {

// The default version of `name` in the real library; nullptr when that library is too old to have
// it.
void* real_symbol(const char* name) noexcept;

template <typename Function>
Function real_function(const char* name) noexcept {
  return reinterpret_cast<Function>(real_symbol(name));
}

}  // namespace tbt::provider

// Returns from the calling verb with what the real `function` returns, or with `failure` if there
// is none.
#define TBT_FORWARD(function, failure, ...)                               \
  do {                                                                    \
    static const auto forward_to =                                        \
        ::tbt::provider::real_function<decltype(&::function)>(#function); \
    if (forward_to == nullptr) {                                          \
      errno = EOPNOTSUPP;                                                 \
      return failure;                                                     \
    }                                                                     \
    return forward_to(__VA_ARGS__);                                       \
  } while (false)
