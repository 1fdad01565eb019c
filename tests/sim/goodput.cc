// Goodput under loss, on the virtual clock: how much of a clean cable's rate is left when the cable
// loses packets at random. Deterministic, so the floors are a test and no timing.
//
//     Host 0: one RC queue pair, 64 messages of 64 KiB posted  --- cable, 1 us ---  Host 1
//
// The rail of a host takes as many packets at most as its ring has room for, so that the engine
// feels the cable's rate. Hosts that look at their rail at once, and hosts that do so now and then.
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <vector>

#include "tests/sim/link.h"

namespace tbt::sim {

namespace {

constexpr uint32_t kMessageBytes = 64 * 1024;
constexpr uint32_t kDepth = 64;
constexpr uint32_t kTag = 1;  // of the one session
constexpr Duration kRunTime = Duration::from_ms(150);

struct Operation {
  const char* name;
  WrOpcode opcode;
};
constexpr std::array<Operation, 3> kOperations = {
    {{"WRITE", WrOpcode::kRdmaWrite}, {"READ", WrOpcode::kRdmaRead}, {"SEND", WrOpcode::kSend}}};

// How often a host looks at its rail. In a real process it is the scheduler's affair, and a round
// trip is tens of microseconds.
struct Pace {
  const char* name;
  uint32_t packet_ns;
  uint32_t ring_packets;
  int64_t look_ns;  // 0: whenever there is something
};

// The losses, and how much of the clean cable's goodput must be left at each: somewhat less than
// is.
constexpr std::array<uint32_t, 6> kLossesPpm = {100, 1000, 10000, 50000, 100000, 300000};
constexpr std::array<int, kLossesPpm.size()> kFloors = {99, 99, 95, 80, 65, 20};

class Host final : private engine::Router {
 public:
  Host(uint16_t lid, uint64_t seed)
      : endpoint({}, *this, Rng(seed)), lid_(lid), memory_(kMessageBytes, std::byte{1}) {
    verbs::MemoryRegion region;
    region.access = kAccessLocalWrite | kAccessRemoteRead | kAccessRemoteWrite;
    region.pd = &pd;
    region.iova = reinterpret_cast<uint64_t>(memory_.data());
    region.length = memory_.size();
    region.base = memory_.data();
    key = endpoint.register_memory(region)->key;
    engine::QpConfig config;
    config.number = lid;
    config.caps = {
        .max_send_wr = kDepth, .max_recv_wr = 2 * kDepth, .max_send_sge = 1, .max_recv_sge = 1};
    config.sq_sig_all = true;
    config.pd = &pd;
    config.send_cq = config.recv_cq = &cq;
    qp = *endpoint.create_qp(config);
  }

  void connect(uint32_t peer) {
    QpAttr attr;
    attr.qp_state = QpState::kInit;
    attr.port_num = 1;
    attr.access_flags = kAccessRemoteRead | kAccessRemoteWrite;
    modify(attr, kQpState | kQpPkeyIndex | kQpPort | kQpAccessFlags);
    attr.qp_state = QpState::kRtr;
    attr.av.dlid = static_cast<uint16_t>(peer);
    attr.path_mtu = 5;
    attr.dest_qpn = peer;
    attr.max_dest_rd_atomic = attr.max_rd_atomic = 16;
    attr.min_rnr_timer = 1;
    modify(attr, kQpState | kQpAv | kQpPathMtu | kQpDestQpn | kQpRqPsn | kQpMaxDestRdAtomic |
                     kQpMinRnrTimer);
    attr.qp_state = QpState::kRts;
    attr.timeout = 14;  // perftest's
    attr.retry_cnt = 7;
    attr.rnr_retry = 7;
    modify(attr, kQpState | kQpTimeout | kQpRetryCnt | kQpRnrRetry | kQpSqPsn | kQpMaxQpRdAtomic);
  }

  [[nodiscard]] Sge whole() {
    return {reinterpret_cast<uint64_t>(memory_.data()), kMessageBytes, key};
  }

  engine::Endpoint endpoint;
  verbs::ProtectionDomain pd;
  verbs::CompletionQueue cq{4 * kDepth, nullptr};
  engine::QueuePair* qp = nullptr;
  fabric::FramingStats framing;
  uint32_t key = 0;

 private:
  void modify(const QpAttr& attr, uint32_t mask) {
    if (!endpoint.modify_qp(Instant{1}, *qp, attr, mask)) std::abort();
  }
  std::optional<verbs::Path> resolve(uint8_t, const AddressVector& address,
                                     uint32_t) const override {
    verbs::Path path;
    path.slid = lid_;
    path.dlid = address.dlid;
    return path;
  }

  uint16_t lid_;
  std::vector<std::byte> memory_;
};

class Run {
 public:
  Run(WrOpcode opcode, uint32_t drop_ppm, const Pace& pace) : opcode_(opcode), pace_(pace) {
    for (auto& link : links_) {
      link.faults.drop_ppm = drop_ppm;
      link.faults.packet_ns = pace.packet_ns;
    }
    hosts_[0].connect(2);
    hosts_[1].connect(1);
  }

  // Bytes completed within kRunTime, or -1 after an error completion.
  int64_t bytes() {
    for (uint32_t i = 0; i < kDepth; ++i) post();
    while (now_.ns < kRunTime.ns) {
      for (uint32_t i = 0; i < 2; ++i) {
        if (now_ < looks_[i]) continue;
        step(i);
        looks_[i] = now_ + Duration{pace_.look_ns};
      }
      if (failed_) return -1;
      Instant next{now_.ns + 100000};
      for (uint32_t i = 0; i < 2; ++i) {
        const Instant wants = std::min(
            {links_[1 - i].next_arrival(), hosts_[i].endpoint.next_deadline(), ring_frees(i)});
        next = std::min(next, std::max(wants, looks_[i]));
      }
      now_ = std::max(next, Instant{now_.ns + 1});
    }
    return int64_t{done_} * kMessageBytes;
  }
  [[nodiscard]] const engine::Stats& stats() const { return hosts_[0].endpoint.stats(); }

 private:
  Instant ring_frees(uint32_t i) const {
    if (!hosts_[i].endpoint.has_transmit(0)) return Instant::never();
    const Instant free{links_[i].busy_until().ns - int64_t{pace_.ring_packets} * pace_.packet_ns};
    return std::max(free, now_);
  }
  [[nodiscard]] bool ring_has_room(uint32_t i) const {
    return links_[i].busy_until().ns - now_.ns < int64_t{pace_.ring_packets} * pace_.packet_ns;
  }

  void post() {
    Sge local = hosts_[0].whole();
    SendWr wr;
    wr.opcode = opcode_;
    wr.sg_list = &local;
    wr.num_sge = 1;
    wr.remote_addr = hosts_[1].whole().addr;
    wr.rkey = hosts_[1].key;
    if (opcode_ == WrOpcode::kSend) {
      Sge target = hosts_[1].whole();
      RecvWr recv;
      recv.sg_list = &target;
      recv.num_sge = 1;
      if (!hosts_[1].endpoint.post_recv(now_, *hosts_[1].qp, recv)) std::abort();
    }
    if (!hosts_[0].endpoint.post_send(now_, *hosts_[0].qp, wr, nullptr)) std::abort();
  }

  void step(uint32_t i) {
    Host& host = hosts_[i];
    receive(host, links_[1 - i]);
    host.endpoint.handle_timeout(now_);
    Wc wc;
    while (host.cq.pop({&wc, 1}) == 1) {
      failed_ = failed_ || wc.status != WcStatus::kSuccess;
      if (i != 0 || failed_) continue;
      ++done_;
      post();
    }
    engine::TxPacket packet;
    while (ring_has_room(i) && host.endpoint.poll_transmit(now_, 0, packet))
      links_[i].send(now_, packet, {.tag = kTag});
  }

  void receive(Host& host, Link& in) {
    Flight flight;
    while (in.receive(now_, flight)) {
      wire::ParsedPacket packet;
      std::span<const std::byte> payload;
      const rail::RxPacket received = flight.as_received();
      if (fabric::read_packet(received, kTag, host.framing, packet, payload))
        host.endpoint.handle_packet(now_, 0, packet, payload);
    }
  }

  WrOpcode opcode_;
  const Pace& pace_;
  Instant now_{1000};
  std::array<Instant, 2> looks_{};
  std::array<Host, 2> hosts_{Host(1, 11), Host(2, 12)};
  std::array<Link, 2> links_{Link(Rng(21)), Link(Rng(22))};
  uint32_t done_ = 0;
  bool failed_ = false;
};

bool measure(const Operation& operation, const Pace& pace) {
  const auto clean = static_cast<double>(Run(operation.opcode, 0, pace).bytes());
  std::printf("%-6s %-5s clean %5.2f GB/s;", operation.name, pace.name,
              clean / static_cast<double>(kRunTime.ns));
  bool good = clean > 0;
  for (size_t i = 0; i < kFloors.size(); ++i) {
    Run run(operation.opcode, kLossesPpm[i], pace);
    const double percent = 100 * static_cast<double>(run.bytes()) / clean;
    const bool enough = percent >= kFloors[i];
    std::printf("  %g%%: %.1f%%%s", kLossesPpm[i] / 10000.0, percent,
                enough ? "" : " (too little)");
    good = good && enough;
  }
  std::printf("\n");
  return good;
}

}  // namespace

}  // namespace tbt::sim

int main() {
  using namespace tbt::sim;
  constexpr std::array<Pace, 2> kPaces = {{{"hot", 300, 64, 0}, {"slow", 1000, 256, 30000}}};
  bool good = true;
  for (const Pace& pace : kPaces) {
    for (const Operation& operation : kOperations) good = measure(operation, pace) && good;
  }
  return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
