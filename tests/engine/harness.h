// One endpoint alone, without a network: tests say what it receives and look at what it wants to
// send.
//
//     Receive ...   hand it a packet
//     Expect ...    take the next packet that it sends, or the next completion
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <vector>

#include "engine/core.h"
#include "engine/endpoint.h"
#include "wire/psn.h"

namespace tbt::engine {

inline constexpr uint16_t kLocalLid = 64;
inline constexpr uint16_t kPeerLid = 128;
inline constexpr uint32_t kLocalQpn = 0x40010;
inline constexpr uint32_t kPeerQpn = 0x80020;
inline constexpr uint32_t kSqPsn = 100;
inline constexpr uint32_t kRqPsn = 500;
inline constexpr uint32_t kMtu = 256;
inline constexpr uint32_t kSrqNumber = 7;  // of the harness's SRQ, if it is of XRC

struct Sent {
  wire::PacketHeaders headers;
  std::vector<std::byte> payload;
};

struct Setup {
  QpType type = QpType::kRc;
  QpState state = QpState::kRts;
  uint32_t access = kAccessLocalWrite | kAccessRemoteRead | kAccessRemoteWrite |
                    kAccessRemoteAtomic | kAccessFlushGlobal | kAccessFlushPersistent;
  uint8_t rd_atomic = 2;
  uint8_t retry_cnt = 2;
  uint8_t rnr_retry = 1;
  uint8_t timeout = 10;  // 4.2 ms
  uint32_t sq_psn = kSqPsn;
  bool with_srq = false;
  bool uc_drop = false;
  bool go_back_n = false;
  QpCaps caps{16, 16, 4, 4, 64};
};

class Harness : private Router {
 public:
  explicit Harness(const Setup& setup = {});

  // Commands, expected to succeed.
  void post_recv(uint64_t wr_id, uint32_t offset, uint32_t length);
  void post(WrOpcode opcode, uint64_t wr_id, uint32_t offset, uint32_t length,
            uint32_t flags = kSendSignaled);
  Status try_post(const SendWr& wr, const AddressHandle* ah = nullptr);

  // A packet from the peer with the right addresses; opcodes are those of RC here and below, and
  // are numbered as the service does.
  wire::PacketHeaders from_peer(wire::Opcode opcode, uint32_t psn) const;
  void receive(const wire::PacketHeaders& headers, std::vector<std::byte> payload = {});
  void receive_ack(uint32_t psn, uint8_t syndrome = 0x1f, uint32_t msn = 0);
  void pass(Duration duration);

  // The next packet, or a failed test.
  Sent expect_packet(wire::Opcode opcode);
  void expect_silence();
  Wc expect_completion(WcStatus status = WcStatus::kSuccess);
  void expect_no_completion();
  void expect_event(AsyncEventType type);
  std::vector<AsyncEventType> events();

  std::array<std::byte, 16384> memory{};
  [[nodiscard]] uint64_t address(uint32_t offset) const {
    return reinterpret_cast<uint64_t>(memory.data()) + offset;
  }

  verbs::ProtectionDomain pd, other_pd;
  verbs::CompletionQueue cq{64, nullptr};
  verbs::XrcDomain xrcd;
  std::unique_ptr<verbs::SharedReceiveQueue> srq;
  std::unique_ptr<Endpoint> endpoint;
  QueuePair* qp = nullptr;
  uint32_t key = 0;
  Instant now{1000000};
  bool route_exists = true;
  bool route_lasts = false;

 private:
  bool xrc_;  // the queue pair may be destroyed before the last packet is looked at
  [[nodiscard]] wire::Opcode of_service(wire::Opcode opcode) const {
    const bool ours = wire::opcode_has(static_cast<uint8_t>(opcode), wire::kOpControl);
    return xrc_ && !ours ? wire::xrc(opcode) : opcode;
  }
  bool lasts(const verbs::Path&) const override { return route_lasts; }
  std::optional<verbs::Path> resolve(uint8_t, const AddressVector& address,
                                     uint32_t) const override;
};

std::vector<std::byte> bytes(uint32_t count, uint8_t first = 1);

}  // namespace tbt::engine
