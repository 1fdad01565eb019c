// A PciDevice that passes for another controller: the registers of `device`, another identity.
// Counts the writes that a test asks about.
#pragma once

#include <map>

#include "rail/nhi/pci_device.h"

namespace tbt::rail::test {

class RenamedDevice : public nhi::PciDevice {
 public:
  RenamedDevice(nhi::PciDevice& device, nhi::PciIdentity identity)
      : device_(device), identity_(identity) {}

  [[nodiscard]] nhi::PciIdentity identity() const noexcept override { return identity_; }
  uint32_t read32(uint32_t offset) noexcept override { return device_.read32(offset); }
  void write32(uint32_t offset, uint32_t value) noexcept override {
    writes_[offset] += 1;
    device_.write32(offset, value);
  }
  Result<uint64_t> dma_map(uint64_t offset, uint64_t bytes) override {
    return device_.dma_map(offset, bytes);
  }
  Status dma_unmap(uint64_t iova, uint64_t bytes) override {
    return device_.dma_unmap(iova, bytes);
  }
  [[nodiscard]] int interrupt_fd(uint32_t v) const noexcept override {
    return v < vectors ? device_.interrupt_fd(v) : -1;
  }
  int64_t advance(int64_t now_ns) noexcept override { return device_.advance(now_ns); }

  [[nodiscard]] int writes(uint32_t offset) const {
    const auto found = writes_.find(offset);
    return found == writes_.end() ? 0 : found->second;
  }
  uint32_t vectors = 16;

 private:
  nhi::PciDevice& device_;
  nhi::PciIdentity identity_;
  std::map<uint32_t, int> writes_;
};

}  // namespace tbt::rail::test
