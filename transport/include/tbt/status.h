// Status and Result: how an operating error travels inside tbt-rdma and out of its public API.
//
// A Status is an errno value and a pointer to a text that lives for ever; it never allocates.
// Result<T> is a T or a Status, with the member names of std::expected (absent in g++ 12), so that
// it can be replaced by it later. Programmer errors do not travel: they stop the process (base/assert.h).
#pragma once

#include <cerrno>
#include <optional>
#include <string_view>
#include <utility>

namespace tbt {

class [[nodiscard]] Status {
 public:
  constexpr Status() noexcept = default;
  // `code` is an errno value, 0 for success. `text` must be a literal: it is kept by address.
  constexpr explicit Status(int code, const char* text = "") noexcept : code_(code), text_(text) {}

  [[nodiscard]] constexpr bool ok() const noexcept { return code_ == 0; }
  constexpr explicit operator bool() const noexcept { return ok(); }
  [[nodiscard]] constexpr int code() const noexcept { return code_; }
  [[nodiscard]] constexpr std::string_view text() const noexcept { return text_; }

 private:
  int code_ = 0;
  const char* text_ = "";
};

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}              // NOLINT(google-explicit-constructor)
  Result(Status error) noexcept : error_(error) {}           // NOLINT(google-explicit-constructor)

  [[nodiscard]] bool has_value() const noexcept { return value_.has_value(); }
  explicit operator bool() const noexcept { return has_value(); }
  [[nodiscard]] T& value() & { return *value_; }
  [[nodiscard]] const T& value() const& { return *value_; }
  [[nodiscard]] T&& value() && { return std::move(*value_); }
  T& operator*() & { return *value_; }
  const T& operator*() const& { return *value_; }
  T&& operator*() && { return std::move(*value_); }
  T* operator->() { return &*value_; }
  const T* operator->() const { return &*value_; }
  [[nodiscard]] Status error() const noexcept { return error_; }

 private:
  std::optional<T> value_;
  Status error_;
};

}  // namespace tbt
