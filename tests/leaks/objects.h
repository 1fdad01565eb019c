// The verbs objects of one connection, made and destroyed as a whole. What is made depends on the
// cycle's number, so that each kind of object comes and goes thousands of times.
#pragma once

#include <infiniband/verbs.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace tbt::leaks {

inline constexpr uint32_t kBulkBytes = 16 * 1024;
inline constexpr uint32_t kPart = 4096;
inline constexpr uint32_t kMemoryBytes = 4 * kBulkBytes;
inline constexpr uint32_t kDepth = 16;
// Besides the connected one, so that QPNs go round several times in 20,000 cycles: there are 2^18.
inline constexpr uint32_t kIdlePairs = 31;

// What a peer must know. Plain bytes: it goes through a socket between two of this program.
struct PeerInfo {
  uint64_t addr = 0;
  uint32_t rkey = 0;
  uint32_t qpn = 0;
  uint16_t lid = 0;
};

class Objects {
 public:
  Objects(ibv_context* context, uint64_t cycle) : context_(context), cycle_(cycle) {}
  Objects(const Objects&) = delete;
  Objects& operator=(const Objects&) = delete;

  void make(std::byte* memory);
  // False if there is no way to the peer for so long that the cable must be out.
  bool connect(const PeerInfo& peer);
  void destroy();

  [[nodiscard]] PeerInfo info() const;
  // Of all pairs that were made, in order.
  [[nodiscard]] const std::vector<uint32_t>& numbers() const { return numbers_; }
  [[nodiscard]] ibv_qp* qp() const { return qp_; }
  [[nodiscard]] ibv_cq* cq() const { return cq_; }
  [[nodiscard]] ibv_mr* mr() const { return mr_; }
  [[nodiscard]] bool waits_for_events() const { return channel_ != nullptr; }
  // The next completion: 1 and it, or 0.
  int poll(ibv_wc& wc);
  void post_receive(uint32_t slot);

 private:
  [[nodiscard]] bool kind(uint64_t modulus, uint64_t rest) const {
    return cycle_ % modulus == rest;
  }
  ibv_qp* make_qp(ibv_qp_type type, ibv_srq* srq);
  void to_init(ibv_qp* qp) const;
  void make_extras();
  void bind_window();
  void take_event();

  ibv_context* context_;
  uint64_t cycle_;
  std::byte* memory_ = nullptr;
  ibv_pd* pd_ = nullptr;
  ibv_mr* mr_ = nullptr;
  ibv_comp_channel* channel_ = nullptr;
  ibv_cq* cq_ = nullptr;
  ibv_srq* srq_ = nullptr;
  ibv_qp* qp_ = nullptr;
  ibv_mw* window_ = nullptr;
  ibv_ah* ah_ = nullptr;
  ibv_td* td_ = nullptr;
  ibv_pd* parent_ = nullptr;
  ibv_dm* dm_ = nullptr;
  ibv_mr* dm_mr_ = nullptr;
  ibv_context* second_ = nullptr;
  std::vector<ibv_qp*> idle_;
  std::vector<uint32_t> numbers_;
};

// Says what failed, and ends the program.
[[noreturn]] void die(const char* what, int code);

}  // namespace tbt::leaks
