// Where exceptions end: what the public interface calls is noexcept or says ENOMEM. Within the
// library std::vector and its like throw std::bad_alloc, and std::thread std::system_error.
#pragma once

#include <new>
#include <system_error>

#include "tbt/status.h"

namespace tbt::device {

// Calls `make`, which returns a Status or a Result and leaves nothing behind when it throws.
template <typename F>
auto or_no_memory(F&& make) noexcept -> decltype(make()) {
  try {
    return make();
  } catch (const std::system_error& error) {
    return Status(error.code().value(), "no thread can be started");
  } catch (...) {
    return Status(ENOMEM, "out of memory");
  }
}

}  // namespace tbt::device
