// The largest messages, and the most queue pairs on one shared receive queue (C-126, C-135).
#include <sys/mman.h>
#include <unistd.h>

#include <map>

#include "pair.h"

namespace tbt::engine {
namespace {

// A gibibyte of addresses over one memory of 257 pages: the number is prime, so that what is placed
// a power of two too far away shows.
class Wide {
 public:
  static constexpr size_t kPage = 4096;
  static constexpr size_t kPages = 257;
  static constexpr size_t kBytes = size_t{1} << 30;

  Wide() {
    const int fd = memfd_create("wide", 0);
    EXPECT_EQ(ftruncate(fd, kPages * kPage), 0);
    at_ = static_cast<std::byte*>(
        mmap(nullptr, kBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    for (size_t offset = 0; offset < kBytes; offset += kPages * kPage) {
      const size_t bytes = std::min(kPages * kPage, kBytes - offset);
      EXPECT_NE(mmap(at_ + offset, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0),
                MAP_FAILED);
    }
    close(fd);
  }
  ~Wide() { munmap(at_, kBytes); }
  Wide(const Wide&) = delete;
  Wide& operator=(const Wide&) = delete;
  [[nodiscard]] std::byte* data() const { return at_; }
  [[nodiscard]] uint64_t address() const { return reinterpret_cast<uint64_t>(at_); }

 private:
  std::byte* at_;
};

constexpr uint32_t kAll = kAccessLocalWrite | kAccessRemoteRead | kAccessRemoteWrite;

uint32_t register_wide(End& end, const Wide& wide) {
  return end.endpoint
      .register_memory({0, kAll, &end.pd, wide.address(), Wide::kBytes, wide.data()})
      ->key;
}

TEST(Large, MessagesOfAGibibyteArrive) {
  const Wide source;
  const Wide target;
  for (size_t i = 0; i < Wide::kPages * Wide::kPage; ++i)
    source.data()[i] = std::byte(i / Wide::kPage * 31 + i * 7);
  const struct {
    WrOpcode opcode;
    uint32_t bytes;
  } kCases[] = {{WrOpcode::kRdmaWrite, 1u << 30},
                {WrOpcode::kRdmaRead, (1u << 28) - 1},
                {WrOpcode::kSend, (1u << 28) + 1}};
  for (const auto& c : kCases) {
    std::memset(target.data(), 0, Wide::kPages * Wide::kPage);
    Pair pair({.mtu = 5});
    const bool read = c.opcode == WrOpcode::kRdmaRead;
    const Wide& here = read ? target : source;
    const Wide& there = read ? source : target;
    const Sge sge{here.address(), c.bytes, register_wide(pair.a, here)};
    const Sge into{there.address(), c.bytes, register_wide(pair.b, there)};
    ASSERT_TRUE(pair.b.endpoint.post_recv(pair.b.now, *pair.b.qp, {1, &into, 1}).ok());
    SendWr wr;
    wr.sg_list = &sge;
    wr.num_sge = 1;
    wr.opcode = c.opcode;
    wr.flags = kSendSignaled;
    wr.remote_addr = there.address();
    wr.rkey = into.lkey;
    ASSERT_TRUE(pair.a.post(wr).ok());
    EXPECT_GE(pair.carry(), c.bytes / 4096);
    EXPECT_EQ(pair.a.completion().status, WcStatus::kSuccess);
    EXPECT_EQ(std::memcmp(target.data(), source.data(), Wide::kPages * Wide::kPage), 0)
        << "opcode " << int(c.opcode);
  }
}

// Messages of two packets come interleaved over 64 queue pairs; each takes one receive, and no
// receive is given to two.
TEST(Large, SixtyFourQueuePairsShareTheirReceives) {
  constexpr uint32_t kPairs = 64;
  Harness h({.with_srq = true});
  const uint32_t first = h.qp->number;
  verbs::CompletionQueue cq(1024, nullptr);
  std::vector<QueuePair*> pairs;
  for (uint32_t i = 1; i <= kPairs; ++i) {
    QpConfig config{first + i, 0,   QpType::kRc, {1, 0, 1, 0, 0}, false,
                    &h.pd,     &cq, &cq,         h.srq.get(),     nullptr};
    QueuePair* qp = *h.endpoint->create_qp(config);
    QpAttr attr = h.qp->attr;
    attr.qp_state = QpState::kInit;
    ASSERT_TRUE(
        h.endpoint->modify_qp(h.now, *qp, attr, kQpState | kQpPkeyIndex | kQpPort | kQpAccessFlags)
            .ok());
    attr.qp_state = QpState::kRtr;
    ASSERT_TRUE(h.endpoint
                    ->modify_qp(h.now, *qp, attr,
                                kQpState | kQpAv | kQpPathMtu | kQpDestQpn | kQpRqPsn |
                                    kQpMaxDestRdAtomic | kQpMinRnrTimer)
                    .ok());
    pairs.push_back(qp);
  }
  Rng rng(3);
  std::map<uint64_t, uint32_t> posted;  // wr_id -> place
  std::vector<uint32_t> psn(kPairs, kRqPsn);
  std::vector<bool> inside(kPairs);
  std::vector<bool> places(16);
  uint64_t id = 0;
  uint64_t messages = 0;
  for (int step = 0; step < 20000; ++step) {
    const auto place = static_cast<uint32_t>(std::ranges::find(places, false) - places.begin());
    if (place < places.size() && rng.below(2) == 0) {
      const Sge sge{h.address(place * 1024), 1024, h.key};
      if (h.endpoint->post_srq_recv(h.now, *h.srq, {++id, &sge, 1}).ok()) {
        posted[id] = place;
        places[place] = true;
      }
    }
    const uint32_t i = rng.below(kPairs);
    auto headers =
        h.from_peer(inside[i] ? wire::Opcode::kRcSendLast : wire::Opcode::kRcSendFirst, psn[i]);
    headers.dest_qp = pairs[i]->number;
    h.receive(headers, std::vector<std::byte>(kMtu, std::byte(i + 1)));
    if (pairs[i]->resp.expected_psn != psn[i]) {  // not RNR
      psn[i] = pairs[i]->resp.expected_psn;
      inside[i] = !inside[i];
    }
    TxPacket packet;
    while (h.endpoint->poll_transmit(h.now, 0, packet)) {
    }
    Wc wc;
    while (cq.pop({&wc, 1}) == 1) {
      ASSERT_EQ(wc.status, WcStatus::kSuccess);
      const auto found = posted.find(wc.wr_id);
      ASSERT_NE(found, posted.end()) << "given out twice";
      const std::byte* at = h.memory.data() + found->second * 1024;
      ASSERT_EQ(std::count(at, at + 2 * kMtu, std::byte(wc.qp_num - first)), 2 * kMtu);
      places[found->second] = false;
      posted.erase(found);
      ++messages;
    }
  }
  EXPECT_GT(messages, 1000u);
  EXPECT_EQ(posted.size(), static_cast<size_t>(std::ranges::count(places, true)));
}

}  // namespace
}  // namespace tbt::engine
