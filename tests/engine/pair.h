// Two endpoints with a cable between them that loses nothing: what one sends, the other receives at
// once. For tests of what both ends see together; the simulator has the bad cables.
#pragma once

#include "harness.h"

namespace tbt::engine {

struct PairSetup {
  QpType type = QpType::kRc;
  uint8_t mtu = 1;  // code: 256 bytes
  uint8_t rd_atomic = 4;
  uint32_t send_depth = 16;
  uint32_t receive_depth = 16;
  bool sq_sig_all = false;
};

// One end: its memory, which the other may write and read, and its queue pair.
class End : private Router {
 public:
  explicit End(uint16_t lid);
  void create(const PairSetup& setup, uint32_t number);
  void connect(const PairSetup& setup, uint32_t peer, uint16_t peer_lid);
  void modify(QpState state);
  Status post(const SendWr& wr) { return endpoint.post_send(now, *qp, wr, nullptr); }
  Status post_recv(uint64_t wr_id, uint32_t offset, uint32_t length);
  [[nodiscard]] uint64_t address(uint64_t offset) const {
    return reinterpret_cast<uint64_t>(memory.data()) + offset;
  }
  Wc completion();  // the next one, or a failed test

  std::vector<std::byte> memory = std::vector<std::byte>(1 << 16);
  verbs::ProtectionDomain pd;
  verbs::CompletionQueue cq{256, nullptr};
  Endpoint endpoint;
  QueuePair* qp = nullptr;
  uint32_t key = 0;
  Instant now{1000000};
  uint16_t lid_on_rail_1 = 0;  // the peer behind the second cable, if there is one

 private:
  std::optional<verbs::Path> resolve(uint8_t, const AddressVector& address,
                                     uint32_t) const override;
  uint16_t lid_;
};

class Pair {
 public:
  explicit Pair(const PairSetup& setup = {});
  // Carries packets both ways until none is left, or so many. Returns how many there were.
  uint32_t carry(uint32_t most = UINT32_MAX);
  // Posts at `a` from its memory at `offset`, to the peer's memory at `remote`.
  void post(WrOpcode opcode, uint64_t wr_id, uint32_t offset, uint32_t length, uint32_t remote = 0,
            uint32_t flags = kSendSignaled);

  End a{64};
  End b{128};
};

}  // namespace tbt::engine
