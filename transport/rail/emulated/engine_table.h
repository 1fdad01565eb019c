// EngineTable: this process's DmaEngine of every flow of a fabric.
#pragma once

#include <array>
#include <memory>

#include "rail/emulated/dma_engine.h"

namespace tbt::rail::emulated {

class EngineTable {
 public:
  // Everything outlives the table.
  EngineTable(FabricSilicon& fabric, const HostView* hosts, QueueSlot* queues) {
    for (uint32_t h = 0; h < fabric.hosts; ++h) {
      for (uint32_t hop = 1; hop < fabric.hop_count; ++hop) {
        QueueSlot* const queue = queues + size_t{kQueueSlots} * (h * fabric.hop_count + hop);
        engines_[h][hop] = std::make_unique<DmaEngine>(fabric, hosts, queue, h, hop);
      }
    }
  }

  // nullptr: ring 0, or no such ring.
  [[nodiscard]] DmaEngine* flow(uint32_t host, uint32_t hop) const noexcept {
    return engines_[host][hop].get();
  }
  // Of the flow that leads to a receive ring; nullptr: none does.
  [[nodiscard]] DmaEngine* feeder(const RingRegisters& rx) const noexcept {
    const uint32_t number = rx.feeder.load(std::memory_order_acquire);
    if (number == 0 || number > kHostsMax * nhi::kHopsMax) return nullptr;
    return flow((number - 1) / nhi::kHopsMax, (number - 1) % nhi::kHopsMax);
  }

 private:
  std::array<std::array<std::unique_ptr<DmaEngine>, nhi::kHopsMax>, kHostsMax> engines_;
};

}  // namespace tbt::rail::emulated
