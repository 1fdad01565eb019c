#include "device/process.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/random.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>

#include "device/context.h"
#include "sys/monotonic_clock.h"

namespace tbt::device {

namespace {

constexpr int kTxBurstsPerStep = 4;
constexpr Duration kAdvanceEvery = Duration::from_us(5);
// A stopped peer's frames are dropped after 100 ms (rail/shared_rail_base.h), and a ring holds what
// a slow link takes less than this for.
constexpr Duration kLastWait = Duration::from_ms(250);
constexpr std::chrono::microseconds kLastLook(20);
// Longer than any ring of a link that works stands still.
constexpr Duration kReadWait = Duration::from_ms(1000);
constexpr Duration kFutile = Duration::from_ms(1000);

std::atomic<bool> forked{false};

uint64_t random_seed() {
  uint64_t seed = 0;
  if (::getrandom(&seed, sizeof seed, 0) != sizeof seed)
    seed = static_cast<uint64_t>(sys::monotonic_now().ns);
  return seed;
}

engine::Options options_from_environment() {
  engine::Options options;
  const char* mode = ::secure_getenv("TBT_UC_MODE");
  options.uc_drop = mode != nullptr && std::strcmp(mode, "drop") == 0;
  return options;
}

// What routes depend on; heartbeats and the like leave it as it is.
bool same_routes(const fabric::DirectoryData& a, const fabric::DirectoryData& b) noexcept {
  return a.controller_lost == b.controller_lost &&
         std::memcmp(&a.ports, &b.ports, sizeof a.ports) == 0 &&
         std::memcmp(&a.links, &b.links, sizeof a.links) == 0 &&
         std::memcmp(&a.peers, &b.peers, sizeof a.peers) == 0;
}

}  // namespace

bool Process::usable() noexcept { return !forked.load(std::memory_order_relaxed); }

Process* Process::get(Status& why) {
  static std::mutex mutex;
  static Process* process =
      nullptr;  // never destroyed: other threads may be inside until the very end
  if (!usable()) {
    why = Status(EPERM, "the device belongs to the parent process");
    return nullptr;
  }
  const std::lock_guard<std::mutex> hold(mutex);
  if (process != nullptr) return process;
  static int registered = ENOMEM;
  if (registered != 0) registered = pthread_atfork(nullptr, nullptr, [] { forked = true; });
  if (registered != 0) {
    why = Status(registered, "out of memory");
    return nullptr;
  }
  Result<uint32_t> rc_loss = RcLoss::from_environment();
  if (!rc_loss) {
    why = rc_loss.error();
    return nullptr;
  }
  // What was begun when memory runs out goes with the attachment.
  why = or_no_memory([&]() -> Status {
    auto attachment = fabric::attach(fabric::daemon_socket_path());
    if (!attachment) return attachment.error();
    process = new Process(std::move(attachment).value(), *rc_loss);
    return {};
  });
  return process;
}

Process::Process(std::unique_ptr<fabric::Attachment> attachment, uint32_t rc_loss_ppm)
    : attachment_(std::move(attachment)),
      memory_(*attachment_->memory),
      direct_(*attachment_),
      rc_loss_(rc_loss_ppm, random_seed()),
      endpoint_(std::make_unique<engine::Endpoint>(options_from_environment(),
                                                   static_cast<const engine::Router&>(*this),
                                                   Rng(random_seed()))),
      directory_before_(std::make_unique<fabric::DirectoryData>()) {
  generation_ = fabric::read_directory(memory_, directory_);
  departures_seen_ = directory_.gone_count;
}

Instant Process::now() const noexcept { return sys::monotonic_now(); }

std::optional<verbs::Path> Process::resolve(uint8_t port, const AddressVector& address,
                                            uint32_t spread) const {
  const auto route = routes_.resolve(port, address, spread);
  if (!route) return std::nullopt;
  verbs::Path path;
  path.rail = route->rail;
  path.sl = address.sl;
  path.dlid = route->dlid;
  path.slid = route->slid;
  path.has_grh = address.is_global;
  path.traffic_class = address.traffic_class;
  path.hop_limit = address.hop_limit;
  path.flow_label = address.flow_label & 0xfffff;
  path.sgid.raw = route->sgid;
  path.dgid = address.dgid;
  return path;
}

bool Process::resolve(uint8_t port, const AddressVector& address,
                      engine::AddressHandle& out) const {
  const auto path = resolve(port, address, /*spread=*/0);
  out.has_path = path.has_value();
  if (path) out.path = *path;
  return out.has_path;
}

uint32_t Process::new_qp_number() noexcept {
  std::atomic<uint32_t>& next = memory_.slot(attachment_->slot).qpn_next;
  for (;;) {
    const uint32_t number = uint32_t{attachment_->slot} << 18 | (next.fetch_add(1) & 0x3ffff);
    if (endpoint_->free_number(number)) return number;
  }
}

bool Process::receive_from(uint32_t rail_index, Instant now) {
  rail::Rail& rail = *attachment_->rails[rail_index];
  if (!rail.rx_pending()) return false;
  received_ = true;
  const size_t count = rail.rx_burst(rx_packets_);
  const uint32_t tag = routes_.tag(rail_index);
  for (size_t i = 0; i < count; ++i) {
    std::span<const std::byte> payload;
    if (fabric::read_packet(rx_packets_[i], tag, framing_, rx_parsed_, payload)) {
      endpoint_->handle_packet(now, rail_index, rx_parsed_, payload);
    }
  }
  rail.rx_release(std::span(rx_packets_).first(count));
  return count != 0;
}

Instant Process::advance_rails(Instant now) noexcept {
  Instant due = Instant::never();
  for (auto& rail : attachment_->rails) due = std::min(due, Instant{rail->advance(now.ns)});
  return due;
}

bool Process::receive(Instant now) {
  bool worked = false;
  // A peer may put something on a timed cable at any moment, so an empty one is looked at again
  // soon.
  if (next_advance_ <= now) next_advance_ = std::min(advance_rails(now), now + kAdvanceEvery);
  for (uint32_t i = 0; i < attachment_->rails.size(); ++i) worked |= receive_from(i, now);
  return worked;
}

// A burst asks for a little more than the one before it needed: reserving the buffers of a whole
// burst for a single message was an eighth of its cost.
bool Process::transmit_on(uint32_t rail_index, Instant now) {
  rail::Rail& rail = *attachment_->rails[rail_index];
  const uint32_t tag = routes_.tag(rail_index);
  const bool takes_direct = rail.capabilities().sends_direct;
  bool worked = false;
  for (int burst = 0; burst < kTxBurstsPerStep && endpoint_->has_transmit(rail_index); ++burst) {
    std::byte* buffers[kTxBurst];
    const size_t room = rail.tx_begin(std::span(buffers).first(tx_wanted_));
    if (room == 0) break;
    size_t used = 0;
    bool direct = false;
    engine::TxPacket& packet = tx_packet_;
    while (used + fabric::kFramesPerPacketMax <= room &&
           endpoint_->poll_transmit(now, rail_index, packet)) {
      if (rc_loss_.takes(packet.headers)) continue;
      const std::span<const std::span<const std::byte>> pieces(packet.payload.data(),
                                                               packet.pieces);
      used += fabric::write_packet(
          packet.headers, pieces, packet.payload_bytes, tag,
          std::span(buffers).subspan(used).first<fabric::kFramesPerPacketMax>(),
          std::span(tx_frames_).subspan(used).first<fabric::kFramesPerPacketMax>(),
          takes_direct ? packet.dma : 0);
      direct |= takes_direct && packet.dma != 0;
    }
    rail.tx_commit(std::span(tx_frames_).first(used));
    if (direct) direct_.committed(rail_index, rail.tx_posted());
    tx_wanted_ = std::min(kTxBurst, 2 * used + kTxLeast);
    worked |= used != 0;
    if (used == 0) break;
  }
  return worked;
}

bool Process::transmit(Instant now) {
  bool worked = false;
  for (uint32_t i = 0; i < attachment_->rails.size(); ++i) {
    if (endpoint_->has_transmit(i)) worked |= transmit_on(i, now);
  }
  return worked;
}

void Process::deliver_events() {
  engine::Event event;
  while (endpoint_->poll_event(event)) {
    if (event.kind == engine::Event::Kind::kTimer) {
      if (asleep_.load(std::memory_order_relaxed)) wake_thread();
      continue;
    }
    auto* object = static_cast<Object*>(event.object);
    if (event.kind == engine::Event::Kind::kCompletion) {
      object->notify_completion();
    } else {
      object->context().raise({event.type, object->user()});
    }
  }
}

// Frames that were sent before a process ended are in our hands before the news of its end is (the
// daemon got both over the same rail, in order), so they are taken first.
void Process::apply_departures(const fabric::DirectoryData& before, Instant now) {
  if (directory_.gone_count == departures_seen_) return;
  while (receive(now)) {
  }
  const uint64_t lost = fabric::kGoneMax;
  uint64_t i =
      std::max(departures_seen_, directory_.gone_count > lost ? directory_.gone_count - lost : 0);
  for (; i < directory_.gone_count; ++i) {
    const fabric::GoneEntry& entry = directory_.gone[i % fabric::kGoneMax];
    fabric::LidList lids;
    auto add_ports = [&](const auto& ports) {
      if (ports[0].lid == entry.lid) lids.add(ports);
    };
    add_ports(directory_.ports);
    for (const auto& peer : directory_.peers) add_ports(peer.ports);
    for (const auto& peer : before.peers) add_ports(peer.ports);
    endpoint_->handle_process_gone(now, {lids.all(), entry.slot, entry.first, entry.count});
  }
  departures_seen_ = directory_.gone_count;
}

void Process::watch_directory(Instant now) {
  if (fabric::directory_generation(memory_) == generation_) return;
  fabric::DirectoryData& before = *directory_before_;
  before = directory_;
  std::array<bool, wire::kPortsMax> active{};
  for (uint8_t port = 0; port < wire::kPortsMax; ++port) active[port] = routes_.port_active(port);
  generation_ = fabric::read_directory(memory_, directory_);
  apply_departures(before, now);
  if (same_routes(before, directory_)) return;
  endpoint_->handle_routes_changed(now);
  // A peer may have come back before we looked, so that all its routes are as they were.
  endpoint_->handle_host_gone(now, fabric::departed_lids(before, directory_).all());
  for (ContextImpl* context : contexts_) context->routes_changed(before, active[context->port()]);
}

bool Process::step(Instant now, const verbs::CompletionQueue* wanted) {
  watch_directory(now);
  bool worked = receive(now);
  // Receiving has turned interrupts off; while the thread sleeps they are what it counts on.
  while (received_ && asleep_.load(std::memory_order_relaxed) && !arm_rails())
    worked |= receive(now);
  if (endpoint_->next_deadline() <= now) worked |= endpoint_->handle_timeout(now);
  transmit_put_off_ = !transmit_put_off_ && wanted != nullptr && wanted->queued() != 0;
  if (!transmit_put_off_) worked |= transmit(now);
  deliver_events();
  if (worked) last_work_ = now;
  return worked;
}

bool Process::wait_read(Guard& hold) {
  const DirectRegions::Marks marks = direct_.marks();
  const Instant start = now();
  for (Instant at = start; !direct_.passed(marks); at = now()) {
    if (at - start > kReadWait) return false;
    hold.unlock();
    std::this_thread::sleep_for(kLastLook);
    hold.lock();
    step(now());
  }
  return true;
}

bool Process::end_direct(uint32_t key, const DirectRegions::Mapping& mapping) {
  if (mapping.bytes == 0) return true;
  Guard hold = guard();
  endpoint_->regions().set_dma(key, 0);
  if (!wait_read(hold)) return false;
  hold.unlock();
  direct_.unmap(mapping);
  return true;
}

// After one wait in vain the link is stuck: many queue pairs in a row do not wait one by one.
void Process::send_last(Guard& hold, const std::function<bool()>& unsent) {
  const Instant start = now();
  step(start);
  if (start < futile_until_) return;
  for (Instant at = start; unsent(); step(at)) {
    if (at - start > kLastWait) {
      futile_until_ = at + kFutile;
      return;
    }
    hold.unlock();
    std::this_thread::sleep_for(kLastLook);
    hold.lock();
    at = now();
  }
}

}  // namespace tbt::device
