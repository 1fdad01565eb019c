// Room on the stack for a batch of plain structs, which are not initialised until somebody fills
// them: clearing sixteen work requests costs more than posting one.
#pragma once

#include <cstddef>
#include <type_traits>

namespace tbt::provider {

template <typename T, size_t kCount>
class Scratch {
  static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);

 public:
  static constexpr size_t size() noexcept { return kCount; }
  T* data() noexcept { return reinterpret_cast<T*>(room_); }
  T& operator[](size_t i) noexcept { return data()[i]; }

 private:
  alignas(T) std::byte room_[kCount * sizeof(T)];
};

}  // namespace tbt::provider
