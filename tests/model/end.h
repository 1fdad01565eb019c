// End: one side of the machine: its memory, its queue pair and what has come of its requests.
//
//   [0, 2048)     what it sends, or where answers come, 512 bytes for each request
//   [2048, 4096)  receives, 512 bytes each
//   [4096, 6144)  what the peer writes
//   [6144, 6656)  what the peer reads
//   [6656, 6664)  the peer's counter
#pragma once

#include <algorithm>

#include "engine/core.h"
#include "tests/model/machine.h"

namespace tbt::model {

inline constexpr uint32_t kPlaceBytes = 512;
inline constexpr uint32_t kMtuBytes = 256;
inline constexpr uint32_t kReceivesAt = 2048;
inline constexpr uint32_t kWrittenAt = 4096;
inline constexpr uint32_t kReadAt = 6144;
inline constexpr uint32_t kCounterAt = 6656;

constexpr std::byte pattern(uint32_t side, uint32_t request, uint32_t at) noexcept {
  return std::byte(1 + side * 101 + request * 37 + at * 7 + at / 256);
}
constexpr uint64_t added(uint32_t request) noexcept { return 1000 + request; }

constexpr bool takes_receive(const Request& request) noexcept {
  return request.opcode == WrOpcode::kSend || request.opcode == WrOpcode::kRdmaWriteImm;
}
constexpr bool is_write(const Request& request) noexcept {
  return request.opcode == WrOpcode::kRdmaWrite || request.opcode == WrOpcode::kRdmaWriteImm;
}
constexpr uint32_t length_of(const Request& request) noexcept {
  if (request.opcode == WrOpcode::kFetchAdd) return 8;
  return request.packets * kMtuBytes - 56;
}

struct Machine::End final : engine::Router {
  explicit End(uint32_t index, const engine::Options& options)
      : lid(static_cast<uint16_t>(64 * (index + 1))), endpoint(options, *this, Rng(index + 1)) {}
  ~End() = default;

  std::optional<verbs::Path> resolve(uint8_t, const AddressVector& address,
                                     uint32_t) const override {
    verbs::Path path;
    path.slid = lid;
    path.dlid = address.dlid;
    return path;
  }
  [[nodiscard]] uint64_t address(uint32_t at) const {
    return reinterpret_cast<uint64_t>(memory.data()) + at;
  }

  // The endpoint's own is early at times, for it corrects its entries when they are due.
  [[nodiscard]] Instant next_timer() const {
    return std::min(qp->deadline(), qp->req.probe_deadline);
  }

  uint16_t lid;
  alignas(8) std::array<std::byte, 6664> memory{};
  verbs::ProtectionDomain pd;
  verbs::CompletionQueue cq{32, nullptr};
  engine::Endpoint endpoint;
  engine::QueuePair* qp = nullptr;
  uint32_t key = 0;
  uint32_t posted = 0;     // receives
  uint32_t unposted = 0;   // that come late
  uint32_t completed = 0;  // requests
  uint32_t received = 0;   // messages
  bool failed = false;
  engine::Stats before;  // the endpoint's, when this run began

  // Goings back that retry_cnt counts, and those after a wait for a receive.
  [[nodiscard]] uint64_t retries() const {
    const engine::Stats& stats = endpoint.stats();
    return stats.retries - before.retries - (stats.probes - before.probes);
  }
};

}  // namespace tbt::model
