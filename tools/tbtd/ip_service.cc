#include "tbtd/ip_service.h"

#include <algorithm>

#include "base/assert.h"
#include "rail/nhi/ip_ring.h"

namespace tbt::daemon {
namespace {

using namespace rail::nhi;

constexpr int kFramesPerTurn = 64;  // of a port; then the others have their turn
constexpr Duration kWatchdog = Duration::from_ms(250);

}  // namespace

IpService::IpService(rail::HostMemory& memory, PciDevice& device, uint32_t host)
    : host_(host), first_ring_(first_ip_ring(quirks_of(device.identity()), memory.cables())) {
  const uint32_t all = hop_count(device);
  for (uint32_t k = 0; k < memory.cables() && first_ring_ + k < all; ++k) {
    Port& port = ports_.emplace_back();
    port.ring =
        std::make_unique<OwnedRing>(memory, device, ip_ring_shape(memory, first_ring_ + k, k));
  }
}

const ip::Identity& IpService::identity(uint32_t port) const {
  TBT_ASSERT(port < ports_.size() && ports_[port].responder);
  return ports_[port].responder->identity();
}

void IpService::adopt() {
  for (Port& port : ports_) {
    if (port.ring->is_enabled()) (void)port.ring->take_over();  // start() says what is wrong
  }
}

Status IpService::start(uint32_t number, const wire::tb::Uuid& router) {
  if (number >= ports_.size()) return Status(ENODEV, "the controller has no ring for it");
  Port& port = ports_[number];
  if (!port.ring->is_running()) {
    if (const Status s = port.ring->start(); !s) return s;
  }
  port.responder = std::make_unique<ip::Responder>(ip::identity_of(router.bytes, number, host_));
  return {};
}

void IpService::up(uint32_t number) {
  TBT_ASSERT(number < ports_.size() && ports_[number].responder);
  ports_[number].assembly.reset();
  ports_[number].up = true;
}

void IpService::down(uint32_t number) {
  if (number < ports_.size()) ports_[number].up = false;
}

void IpService::stop() noexcept {
  for (Port& port : ports_) {
    port.up = false;
    port.ring->stop();
  }
}

bool IpService::turn(Instant now) {
  bool any = false;
  look_ = Instant::never();
  for (Port& port : ports_) {
    if (port.up) look_ = now + kWatchdog;
    OwnedFrame frame;
    for (int i = 0; i < kFramesPerTurn && port.ring->peek(frame); ++i) {
      any = true;
      if (port.up) take(port, frame);
      port.ring->consume();
    }
  }
  return any;
}

void IpService::take(Port& port, const OwnedFrame& frame) {
  if (frame.damaged) return port.assembly.reset();
  if (!port.assembly.add(frame.bytes)) return;
  const auto answer = port.responder->handle(port.assembly.packet());
  if (!answer.empty()) send(port, answer);
}

// Half a packet would be of no use.
void IpService::send(Port& port, std::span<const std::byte> packet) {
  ip::PacketFrames frames(packet, port.packet_id++);
  if (port.ring->room() < frames.count()) return;
  for (auto frame = frames.next(); !frame.empty(); frame = frames.next()) {
    port.ring->send(kIpFrameSof, kIpFrameEof, frame);
  }
}

bool IpService::arm() {
  bool quiet = true;
  for (Port& port : ports_) quiet = port.ring->arm() && quiet;
  return quiet;
}

}  // namespace tbt::daemon
