// SendQueue: the send work requests of a queue pair, from post to the poll of their completion.
//
// Three free-running indices move over a ring: released <= head <= tail.
//   [released, head)  completed; the slot is still taken until the completion is polled
//   [head, tail)      outstanding, oldest first
// Everything a work request refers to (SGE list, inline data) is copied in at post time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "tbt/types.h"
#include "verbs/path.h"

namespace tbt::verbs {

struct SendWqe {
  uint64_t wr_id = 0;
  uint64_t remote_addr = 0;  // these six: as in SendWr
  uint64_t compare_add = 0;
  uint64_t swap = 0;
  uint32_t rkey = 0;
  uint32_t imm_be = 0;
  uint32_t length = 0;
  uint32_t num_sge = 0;
  uint32_t remote_qpn = 0;   // UD; XRC: the peer's SRQ
  uint32_t remote_qkey = 0;  // UD
  WrOpcode opcode = WrOpcode::kSend;
  bool signaled = false;
  bool fence = false;
  bool solicited = false;
  bool is_inline = false;
  // Set by the requester:
  bool started = false;    // PSNs are assigned
  bool done = false;       // READ or atomic: the whole answer has arrived
  bool restarted = false;  // READ: was asked for again from its middle
  bool held = false;       // READ or atomic: the peer has the request, as a SACK said
  uint32_t first_psn = 0;
  uint32_t psn_count = 0;     // READ: of the responses
  uint32_t ssn = 0;           // send sequence number of the message (IBA 9.7.7.2.1)
  uint32_t read_packets = 0;  // READ: responses received in order
  uint32_t read_early = 0;    // READ: responses that came behind a gap

  [[nodiscard]] bool is_read() const noexcept { return opcode == WrOpcode::kRdmaRead; }
  [[nodiscard]] bool is_atomic() const noexcept {
    return opcode == WrOpcode::kCmpSwap || opcode == WrOpcode::kFetchAdd;
  }
  // Its answer is a packet of its own, not an acknowledge; a FLUSH or ATOMIC WRITE is answered like
  // a READ of no bytes.
  [[nodiscard]] bool wants_answer() const noexcept {
    return is_one_of(kBits<WrOpcode::kRdmaRead, WrOpcode::kCmpSwap, WrOpcode::kFetchAdd,
                           WrOpcode::kFlush, WrOpcode::kAtomicWrite>);
  }
  [[nodiscard]] bool answered_as_read() const noexcept {
    return is_one_of(kBits<WrOpcode::kRdmaRead, WrOpcode::kFlush, WrOpcode::kAtomicWrite>);
  }
  // Data comes back, into its SGEs.
  [[nodiscard]] bool brings_data() const noexcept {
    return is_one_of(kBits<WrOpcode::kRdmaRead, WrOpcode::kCmpSwap, WrOpcode::kFetchAdd>);
  }
  [[nodiscard]] bool has_imm() const noexcept {
    return opcode == WrOpcode::kSendImm || opcode == WrOpcode::kRdmaWriteImm;
  }
  [[nodiscard]] bool is_write() const noexcept {
    return opcode == WrOpcode::kRdmaWrite || opcode == WrOpcode::kRdmaWriteImm;
  }
  [[nodiscard]] bool consumes_receive() const noexcept {
    return !wants_answer() && !is_local() && opcode != WrOpcode::kRdmaWrite;
  }
  [[nodiscard]] bool invalidates() const noexcept { return opcode == WrOpcode::kSendInv; }
  // Sends nothing.
  [[nodiscard]] bool is_local() const noexcept {
    return opcode == WrOpcode::kLocalInv || opcode == WrOpcode::kBindMw;
  }

 private:
  template <WrOpcode... kOpcodes>
  static constexpr uint32_t kBits = ((1u << static_cast<uint32_t>(kOpcodes)) | ...);
  [[nodiscard]] bool is_one_of(uint32_t bits) const noexcept {
    return (bits >> static_cast<uint32_t>(opcode) & 1) != 0;
  }
};

class SendQueue {
 public:
  // `caps` are the granted ones. UD queues keep a path per request.
  SendQueue(const QpCaps& caps, bool with_paths);

  [[nodiscard]] uint32_t room() const noexcept { return capacity_ - (tail - released); }
  [[nodiscard]] bool full() const noexcept { return tail - released == capacity_; }
  [[nodiscard]] bool empty() const noexcept { return head == tail; }
  // The slot that the next post fills; the caller then advances tail.
  SendWqe& next_slot() noexcept { return at(tail); }
  [[nodiscard]] SendWqe& at(uint32_t index) noexcept { return wqes_[index & mask_]; }
  [[nodiscard]] std::span<Sge> sges(uint32_t index) noexcept {
    return std::span<Sge>(sges_).subspan(size_t{index & mask_} * max_sge_, max_sge_);
  }
  [[nodiscard]] std::span<std::byte> inline_data(uint32_t index) noexcept {
    return std::span<std::byte>(inline_).subspan(size_t{index & mask_} * max_inline_, max_inline_);
  }
  [[nodiscard]] Path& path(uint32_t index) noexcept { return paths_[index & mask_]; }
  void clear() noexcept { released = head = tail = 0; }

  uint32_t released = 0;
  uint32_t head = 0;
  uint32_t tail = 0;

 private:
  uint32_t capacity_;
  uint32_t mask_;
  uint32_t max_sge_;
  uint32_t max_inline_;
  std::vector<SendWqe> wqes_;
  std::vector<Sge> sges_;
  std::vector<std::byte> inline_;
  std::vector<Path> paths_;
};

}  // namespace tbt::verbs
