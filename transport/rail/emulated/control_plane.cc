#include "rail/emulated/control_plane.h"

#include <algorithm>
#include <cstring>

#include "base/assert.h"
#include "sys/event_fd.h"

namespace tbt::rail::emulated {

using nhi::Descriptor;

namespace {

constexpr uint32_t kHopIdFirst = 8;  // lower ones are reserved on cables
constexpr uint32_t kFixedCredits = 14;
constexpr uint32_t kRaiseTx = 2, kRaiseRx = 1;       // NhiSilicon::ring0_raise
constexpr uint64_t kGolden = 0x9e37'79b9'7f4a'7c15;  // spreads the bits of host numbers

uint32_t next_of(uint32_t index, uint32_t size) noexcept {
  return index + 1 == size ? 0 : index + 1;
}

bool is_enabled(const RingRegisters& regs) noexcept {
  return (regs.options.load(std::memory_order_acquire) & nhi::kOptionEnable) != 0;
}

Descriptor* descriptors_of(const HostView& host, const RingRegisters& regs) noexcept {
  if (!is_enabled(regs) || !host.is_visible()) return nullptr;
  const uint64_t base = uint64_t{regs.base_high.load(std::memory_order_relaxed)} << 32 |
                        regs.base_low.load(std::memory_order_relaxed);
  const uint64_t bytes = regs.size.load(std::memory_order_relaxed) * sizeof(Descriptor);
  return reinterpret_cast<Descriptor*>(translate(host, base, bytes));
}

// The slowest generation whose two lanes carry the rate.
CableLink link_of(const CableParams& params, bool usb4_v2) noexcept {
  constexpr uint64_t kGbps = 1'000'000'000;
  uint8_t generation = usb4_v2 ? 4 : 3;
  if (params.rate_bps != 0 && params.rate_bps <= 40 * kGbps) generation = 3;
  if (params.rate_bps != 0 && params.rate_bps <= 20 * kGbps) generation = 2;
  return {params.plugged, generation, params.one_lane};
}

}  // namespace

// One holding of the control lock. What changed is looked at when it ends: routes first, then the
// queues of ring 0, and interrupts when the lock is free.
class ControlPlane::Turn {
 public:
  explicit Turn(ControlPlane& plane) noexcept : plane_(plane) {
    if (plane_.fabric_.control_lock.lock() != sys::LockOutcome::kOwnerDied) return;
    for (uint32_t h = 0; h < plane_.fabric_.hosts; ++h) plane_.router(h).recover();
  }
  ~Turn() {
    FabricSilicon& fabric = plane_.fabric_;
    if (fabric.resolved != plane_.generation()) plane_.resolve();
    for (uint32_t h = 0; h < fabric.hosts; ++h) plane_.feed(h);
    fabric.control_lock.unlock();
    for (uint32_t h = 0; h < fabric.hosts; ++h) {
      // Only the process that plays a virtual machine can interrupt it. It is about to: it was the
      // one that owes the interrupt.
      const HostView& host = plane_.hosts_[h];
      if (host.is_guest() && host.guest == nullptr) continue;
      const uint32_t raise = fabric.nhis[h].ring0_raise.exchange(0);
      if ((raise & kRaiseTx) != 0) raise_interrupt(host, 0);
      if ((raise & kRaiseRx) != 0) raise_interrupt(host, fabric.hop_count);
    }
  }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

 private:
  ControlPlane& plane_;
};

ControlPlane::FarEnd ControlPlane::across(uint32_t host, uint32_t port) const noexcept {
  for (uint32_t i = 0; i < fabric_.cables; ++i) {
    const CableSilicon& cable = fabric_.lines[i];
    const auto number = static_cast<uint8_t>(i);
    if (cable.host_a == host && cable.ordinal_a == port) {
      return {number, 0, cable.host_b, cable.ordinal_b, true};
    }
    if (cable.host_b == host && cable.ordinal_b == port) {
      return {number, 1, cable.host_a, cable.ordinal_a, true};
    }
  }
  return {};
}

uint32_t ControlPlane::ports_of(uint32_t host) const noexcept {
  uint32_t ports = 1;
  for (uint32_t i = 0; i < fabric_.cables; ++i) {
    const CableSilicon& cable = fabric_.lines[i];
    if (cable.host_a == host) ports = std::max(ports, cable.ordinal_a + 1);
    if (cable.host_b == host) ports = std::max(ports, cable.ordinal_b + 1);
  }
  return ports;
}

void ControlPlane::power_on(uint64_t seed) noexcept {
  for (uint32_t h = 0; h < fabric_.hosts; ++h) {
    RouterShape shape;
    shape.ports = ports_of(h);
    shape.hop_count = fabric_.hop_count;
    shape.usb4_v2 = fabric_.usb4_v2;
    shape.intel = !is_amd(fabric_, h);
    shape.unique_id = (seed * kHostsMax + h + 1) * kGolden;
    emulated::power_on(fabric_.nhis[h].router, shape);
  }
  const Turn turn(*this);
  for (uint32_t c = 0; c < fabric_.cables; ++c) train_cable(c);
}

void ControlPlane::fix_paths() noexcept {
  const Turn turn(*this);
  fabric_.fixed_paths = true;
  for (uint32_t h = 0; h < fabric_.hosts; ++h) set_fixed_paths(h);
}

// As two connection managers would agree on it for each cable.
void ControlPlane::set_fixed_paths(uint32_t host) noexcept {
  const uint32_t ports = ports_of(host);
  for (uint32_t port = 0; port < ports; ++port) {
    if (!across(host, port).exists) continue;
    set_path(host, nhi_adapter(ports), port + 1, lane_adapter(port), kHopIdFirst);
    set_path(host, lane_adapter(port), kHopIdFirst, nhi_adapter(ports), port + 1);
  }
}

void ControlPlane::set_path(uint32_t host, uint32_t adapter, uint32_t hop_id, uint32_t egress,
                            uint32_t next) noexcept {
  wire::tb::WriteRequest request;
  request.address.space = wire::tb::ConfigSpace::kPath;
  request.address.adapter = static_cast<uint8_t>(adapter);
  request.address.offset = static_cast<uint16_t>(2 * hop_id);
  request.address.length = 2;
  request.data.push(next | egress << 11 | kFixedCredits << 17 | 1u << 31);
  request.data.push(1u | 1u << 24 | 1u << 25);  // weight, flow control at both sides
  wire::tb::ControlFrame frame;
  wire::tb::encode_control_packet(request, frame);
  RouterOutput nobody_asked;
  router(host).handle_host(static_cast<uint8_t>(frame.pdf), frame.span(), nobody_asked);
}

// ---- ring 0

void ControlPlane::transmit(uint32_t host) noexcept {
  const Turn turn(*this);
  take_sent(host);
}

void ControlPlane::receive(uint32_t host) noexcept {
  // Applications come by here as well, on their sweeps: the lock is not for them unless there is
  // something. The queue is read after the doorbell was stored, and whoever fills it does it the
  // other way round.
  const NhiSilicon& nhi = fabric_.nhis[host];
  const bool sent = is_enabled(nhi.tx[0]) && nhi.tx[0].index.load(std::memory_order_seq_cst) !=
                                                 nhi.tx[0].own_half.load(std::memory_order_seq_cst);
  const bool waits = is_enabled(nhi.rx[0]) && nhi.to_ring0.in.load(std::memory_order_seq_cst) !=
                                                  nhi.to_ring0.out.load(std::memory_order_seq_cst);
  if (!sent && !waits) return;
  const Turn turn(*this);
  take_sent(host);
}

// Each packet is answered before the next is looked at.
void ControlPlane::take_sent(uint32_t host) noexcept {
  RingRegisters& regs = fabric_.nhis[host].tx[0];
  Descriptor* const ring = descriptors_of(hosts_[host], regs);
  if (ring == nullptr) return;
  const uint32_t size = regs.size.load(std::memory_order_relaxed);
  uint32_t at = regs.own_half.load(std::memory_order_relaxed);
  while (at != regs.index.load(std::memory_order_acquire) && at < size) {
    std::span<const std::byte> bytes;
    uint8_t pdf = 0;
    RouterOutput output;
    if (fetch(host, at, bytes, pdf)) {
      if (tap_) tap_(host, {true, pdf, bytes});
      router(host).handle_host(pdf, bytes, output);
    }
    const uint32_t word = ring[at].word.load(std::memory_order_relaxed);
    ring[at].word.store(word | nhi::kCompleted, std::memory_order_release);
    // Linux takes completed packets off its ring in the interrupt only: without it, ten fill it.
    if ((word & nhi::kRequestInterrupt) != 0) {
      fabric_.nhis[host].ring0_raise.fetch_or(kRaiseTx);
    }
    at = next_of(at, size);
    regs.own_half.store(at, std::memory_order_release);
    carry(host, output);
  }
}

bool ControlPlane::fetch(uint32_t host, uint32_t index, std::span<const std::byte>& bytes,
                         uint8_t& pdf) noexcept {
  NhiSilicon& nhi = fabric_.nhis[host];
  Descriptor& d = descriptors_of(hosts_[host], nhi.tx[0])[index];
  const uint32_t word = d.word.load(std::memory_order_acquire);
  const uint32_t length = nhi::word_length(word);
  if ((word & nhi::kPosted) == 0) {
    count_misuse(nhi, Misuse::kNotPosted);
    return false;
  }
  if (length > wire::tb::kControlPacketMax) {
    count_misuse(nhi, Misuse::kRawTooLong);
    return false;
  }
  const std::byte* data =
      translate(hosts_[host], d.address.load(std::memory_order_relaxed), length, Reach::kRead);
  if (data == nullptr) return false;
  bytes = {data, length};
  pdf = nhi::word_eof(word);
  return true;
}

void ControlPlane::carry(uint32_t host, const RouterOutput& output) noexcept {
  for (size_t i = 0; i < output.count; ++i) {
    const RouterOutput::Packet& packet = output.packets[i];
    packet.to == RouterOutput::kHost ? queue(host, packet.frame) : carry_over(host, packet);
  }
  for (uint32_t port = 0; port < kRouterPortsMax; ++port) {
    if ((output.retrain >> port & 1) == 0) continue;
    if (const FarEnd far = across(host, port); far.exists) train_cable(far.cable);
  }
}

void ControlPlane::carry_over(uint32_t host, const RouterOutput::Packet& packet) noexcept {
  const FarEnd far = across(host, packet.to);
  if (!far.exists) return;
  if (!survives(far, packet.frame.bytes)) {
    fabric_.nhis[host].control_drops.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  RouterOutput output;
  router(far.host).handle_cable(far.port, static_cast<uint8_t>(packet.frame.pdf),
                                packet.frame.span(), output);
  carry(far.host, output);
}

// The faults of the cable, its rate and latency apart: a damaged packet is dropped by whoever
// checks it.
bool ControlPlane::survives(const FarEnd& far, size_t bytes) noexcept {
  CableSilicon& cable = fabric_.lines[far.cable];
  CableParams params = load_params(cable);
  params.rate_bps = 0;
  if (CableModel::is_ideal(params)) return true;
  DirectionSilicon& direction = far.b_to_a != 0 ? cable.b_to_a : cable.a_to_b;
  const Verdict verdict = decide_on(direction, 0, static_cast<uint32_t>(bytes), params);
  return !verdict.drop && !verdict.corrupt;
}

void ControlPlane::train_cable(uint32_t number) noexcept {
  const CableSilicon& cable = fabric_.lines[number];
  RouterModel a = router(cable.host_a), b = router(cable.host_b);
  RouterOutput out_a, out_b;
  CableLink link = link_of(load_params(cable), fabric_.usb4_v2);
  for (const uint32_t host : {cable.host_a, cable.host_b}) {
    if (fabric_.nhis[host].removed.load(std::memory_order_seq_cst) != 0) link.plugged = false;
  }
  train(link, a, cable.ordinal_a, out_a, b, cable.ordinal_b, out_b);
  carry(cable.host_a, out_a);
  carry(cable.host_b, out_b);
}

void ControlPlane::queue(uint32_t host, const wire::tb::ControlFrame& frame) noexcept {
  NhiSilicon& nhi = fabric_.nhis[host];
  ControlQueue& queue = nhi.to_ring0;
  if (queue.in - queue.out >= ControlQueue::kPackets) {
    nhi.control_drops.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  ControlQueue::Packet& packet = queue.packets[queue.in % ControlQueue::kPackets];
  packet.pdf = static_cast<uint8_t>(frame.pdf);
  packet.bytes = static_cast<uint16_t>(frame.bytes);
  std::memcpy(packet.data.data(), frame.buffer.data(), frame.bytes);
  ++queue.in;
}

// As many as there are descriptors for. A router holds back what ring 0 cannot take.
void ControlPlane::feed(uint32_t host) noexcept {
  NhiSilicon& nhi = fabric_.nhis[host];
  ControlQueue& queue = nhi.to_ring0;
  if (queue.in == queue.out) return;
  if (!is_enabled(nhi.rx[0]) || nhi.removed.load(std::memory_order_relaxed) != 0) return;
  if (!hosts_[host].is_visible()) return sys::signal_eventfd(hosts_[host].interrupt_fd);
  RingRegisters& regs = nhi.rx[0];
  const uint32_t size = regs.size.load(std::memory_order_relaxed);
  uint32_t at = regs.own_half.load(std::memory_order_relaxed);
  while (queue.in != queue.out && at < size && at != regs.index.load(std::memory_order_acquire)) {
    if (!place(host, at, queue.packets[queue.out % ControlQueue::kPackets])) return;
    ++queue.out;
    at = next_of(at, size);
    regs.own_half.store(at, std::memory_order_release);
  }
}

bool ControlPlane::place(uint32_t host, uint32_t index,
                         const ControlQueue::Packet& packet) noexcept {
  NhiSilicon& nhi = fabric_.nhis[host];
  Descriptor* const ring = descriptors_of(hosts_[host], nhi.rx[0]);
  if (ring == nullptr) return false;
  Descriptor& d = ring[index];
  const uint32_t old_word = d.word.load(std::memory_order_acquire);
  if ((old_word & nhi::kPosted) == 0 || (old_word & nhi::kCompleted) != 0) {
    count_misuse(nhi, Misuse::kNotPosted);
    return false;
  }
  std::byte* const data =
      translate(hosts_[host], d.address.load(std::memory_order_relaxed), packet.bytes);
  if (data == nullptr) return false;
  std::memcpy(data, packet.data.data(), packet.bytes);
  if (tap_) tap_(host, {false, packet.pdf, std::span(packet.data).first(packet.bytes)});
  // The type is in EOF; SOF is 0 in raw mode, and Linux insists on it.
  d.word.store(nhi::pack_frame(packet.bytes, 0, packet.pdf) | nhi::kCompleted,
               std::memory_order_release);
  if ((old_word & nhi::kRequestInterrupt) != 0) nhi.ring0_raise.fetch_or(kRaiseRx);
  return true;
}

void ControlPlane::stop_ring(uint32_t host, uint32_t hop, bool tx) noexcept {
  const Turn turn(*this);
  RingRegisters& regs = tx ? fabric_.nhis[host].tx[hop] : fabric_.nhis[host].rx[hop];
  DmaEngine* const engine = tx ? engines_.flow(host, hop) : engines_.feeder(regs);
  if (engine != nullptr) tx ? engine->reset_tx() : engine->reset_rx();
  regs.own_half.store(0, std::memory_order_relaxed);
  if (hop == 0 && !tx) fabric_.nhis[host].to_ring0.out = fabric_.nhis[host].to_ring0.in.load();
}

void ControlPlane::reset_router(uint32_t host) noexcept {
  const Turn turn(*this);
  fabric_.nhis[host].to_ring0.out = fabric_.nhis[host].to_ring0.in.load();
  RouterOutput output;
  router(host).reset(output);
  carry(host, output);
  if (fabric_.fixed_paths) set_fixed_paths(host);
}

// ---- cables and paths

void ControlPlane::cable_changed(uint32_t cable) noexcept {
  {
    const Turn turn(*this);
    train_cable(cable);
  }
  for (uint32_t h = 0; h < fabric_.hosts; ++h) {
    for (uint32_t hop = 1; hop < fabric_.hop_count; ++hop) {
      DmaEngine& engine = *engines_.flow(h, hop);
      const Route route = engine.route();
      if (route.state != Route::State::kNone && route.cable == cable) engine.run_bounded();
    }
  }
}

uint64_t ControlPlane::generation() const noexcept {
  uint64_t sum = 1;  // never what a new fabric has in `resolved`
  for (uint32_t h = 0; h < fabric_.hosts; ++h) sum += router(h).path_generation();
  return sum;
}

Route ControlPlane::find_route(uint32_t host, uint32_t hop) const noexcept {
  const RouterModel here = router(host);
  const PathEntry own = here.path(nhi_adapter(here.ports()), hop);
  const uint32_t port = (uint32_t{own.egress_adapter} - 1) / 2;
  if (!own.enabled || port >= here.ports() || !here.port_up(port)) return {};
  const FarEnd far = across(host, port);
  if (!far.exists) return {};
  Route route{Route::State::kBlocked, far.cable, far.b_to_a, 0, 0};
  const RouterModel there = router(far.host);
  const PathEntry entry = there.path(lane_adapter(far.port), own.next_hop);
  const bool leads_to_a_ring = entry.enabled &&
                               entry.egress_adapter == nhi_adapter(there.ports()) &&
                               entry.next_hop != 0 && entry.next_hop < fabric_.hop_count;
  if (!leads_to_a_ring) return route;
  route.state = Route::State::kOpen;
  route.host = static_cast<uint8_t>(far.host);
  route.hop = static_cast<uint8_t>(entry.next_hop);
  return route;
}

// First whatever ends, then whatever begins, so that a receive ring changes hands cleanly. A ring
// that one path leads to gets no second one.
void ControlPlane::resolve() noexcept {
  fabric_.resolved = generation();
  for (const bool opens : {false, true}) {
    for (uint32_t h = 0; h < fabric_.hosts; ++h) {
      for (uint32_t hop = 1; hop < fabric_.hop_count; ++hop) {
        const Route found = find_route(h, hop);
        if (found != engines_.flow(h, hop)->route()) change_route(h, hop, found, opens);
      }
    }
  }
}

void ControlPlane::change_route(uint32_t host, uint32_t hop, Route next, bool opens) noexcept {
  DmaEngine& engine = *engines_.flow(host, hop);
  if (opens && fabric_.nhis[next.host].rx[next.hop].feeder.load() != 0) return;
  if (!opens && next.state == Route::State::kOpen) {
    next = {Route::State::kBlocked, next.cable, next.b_to_a};
  }
  if (next == engine.route()) return;
  if (!engine.change_route(next)) {
    fabric_.resolved = 0;  // whoever comes next tries again
    return;
  }
  engine.run_bounded();
}

}  // namespace tbt::rail::emulated
