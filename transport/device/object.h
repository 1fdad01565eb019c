// Object: what every verbs object of a context has: its context and the user's pointer.
#pragma once

#include "tbt/device.h"

namespace tbt::device {

class ContextImpl;

class Object {
 public:
  Object(ContextImpl& context, void* user) : context_(context), user_(user) {}
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;
  virtual ~Object() = default;

  ContextImpl& context() noexcept { return context_; }
  [[nodiscard]] void* user() const noexcept { return user_; }
  // CQs only: a completion event is due. The lock is held.
  virtual void notify_completion() noexcept {}

 private:
  ContextImpl& context_;
  void* user_;
};

}  // namespace tbt::device
