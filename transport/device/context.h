// ContextImpl: one open device (a port of the host) and the objects made on it.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "device/no_memory.h"
#include "device/object.h"
#include "device/process.h"

namespace tbt::device {

class AhImpl;

// Refuses calls in the child of a fork.
#define TBT_REQUIRE_USABLE()                                                                  \
  do {                                                                                        \
    if (!Process::usable()) return Status(EPERM, "the device belongs to the parent process"); \
  } while (false)

class ContextImpl final : public Context {
 public:
  ContextImpl(Process& process, uint8_t port, AsyncSink* sink)
      : process_(process), port_(port), sink_(sink) {}
  virtual ~ContextImpl() = default;

  DeviceAttr query_device() const override;
  PortAttr query_port() const override;
  Gid query_gid(uint32_t index) const override;
  Result<Pd*> create_pd() override;
  Result<Cq*> create_cq(const CqOptions& options) override;
  Result<Xrcd*> create_xrcd(Xrcd* same_as) override;
  uint64_t now_ns() const noexcept override;
  void close() override;

  Process& process() noexcept { return process_; }
  [[nodiscard]] uint8_t port() const noexcept { return port_; }

  // With the process's lock held.
  void raise(const AsyncEvent& event) noexcept;
  void routes_changed(const fabric::DirectoryData& before, bool was_active) noexcept;

  // An object of the context that is still being made: gone again unless it is kept.
  template <typename T>
  class Adopted {
   public:
    Adopted(ContextImpl& context, T* object) noexcept : context_(context), object_(object) {}
    Adopted(const Adopted&) = delete;
    Adopted& operator=(const Adopted&) = delete;
    ~Adopted() {
      if (object_ != nullptr) context_.discard(*object_);
    }
    T* operator->() noexcept { return object_; }
    T* get() noexcept { return object_; }
    T* keep() noexcept { return std::exchange(object_, nullptr); }

   private:
    ContextImpl& context_;
    T* object_;
  };
  // All memory that an object of the context needs is there afterwards. Throws std::bad_alloc.
  template <typename T>
  Adopted<T> adopt(std::unique_ptr<T> object) {
    T* raw = object.get();
    objects_.emplace(raw, std::move(object));
    return Adopted<T>(*this, raw);
  }
  void discard(const Object& object) noexcept;
  std::vector<AhImpl*>& address_handles() noexcept { return address_handles_; }

 private:
  [[nodiscard]] const fabric::PortEntry& entry() const noexcept {
    return process_.directory().ports[port_];
  }

  Process& process_;
  uint8_t port_;
  AsyncSink* sink_;
  std::unordered_map<const Object*, std::unique_ptr<Object>> objects_;
  std::vector<AhImpl*> address_handles_;
};

}  // namespace tbt::device
