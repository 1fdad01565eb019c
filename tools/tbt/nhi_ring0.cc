#include "tbt/nhi_ring0.h"

#include <poll.h>

#include <algorithm>
#include <variant>

#include "rail/nhi/nhi_regs.h"
#include "sys/event_fd.h"
#include "sys/monotonic_clock.h"
#include "wire/tb/control_packet.h"

namespace tbt::tool {
namespace {

using namespace wire::tb;

constexpr uint32_t kVector = 0;  // of ring 0, control_ring.cc
constexpr uint8_t kSequences = 4;
constexpr int64_t kNsPerMs = 1000 * 1000;

}  // namespace

Result<RouterAnswer> RouterReader::read_ids(Wait wait) {
  const Instant begin = sys::monotonic_now();
  const Instant end = begin + answer_max_;
  drop_what_is_there();
  // Who is at the other end of a cable may speak to us at any time, so something may be there
  // again.
  while (wait == Wait::kForInterrupt && !ring_.arm()) {
    if (sys::monotonic_now() > end) return Status(EBUSY, "ring 0 does not become empty");
    drop_what_is_there();
  }
  if (!ask()) {
    return Status(ETIMEDOUT, "ring 0 does not send: its descriptors stay with the controller");
  }
  RouterAnswer answer;
  bool armed = wait == Wait::kForInterrupt;
  while (true) {
    if (armed) answer.without_interrupt = !wait_for_interrupt(end);
    auto ids = take_answer();
    if (ids) {
      answer.ids = *ids;
      answer.took = sys::monotonic_now() - begin;
      return answer;
    }
    if (ids.error().code() != EAGAIN) return ids.error();
    if (sys::monotonic_now() > end) return why_nothing_came();
    armed = wait == Wait::kForInterrupt && ring_.arm();
  }
}

void RouterReader::drop_what_is_there() {
  rail::nhi::ControlPacketView old;
  sys::drain_eventfd(device_.interrupt_fd(kVector));
  while (ring_.peek(old)) ring_.consume();
}

bool RouterReader::ask() {
  sequence_ = static_cast<uint8_t>((sequence_ + 1) % kSequences);
  ReadRequest request;
  request.address = {.sequence = sequence_};
  ControlFrame frame;
  encode_control_packet(request, frame);
  return ring_.send(static_cast<uint8_t>(frame.pdf), frame.span());
}

// Of the next packet, which need not be the answer.
bool RouterReader::wait_for_interrupt(Instant end) noexcept {
  const int64_t left_ms = (end - sys::monotonic_now()).ns / kNsPerMs;
  pollfd fd{device_.interrupt_fd(kVector), POLLIN, 0};
  if (::poll(&fd, 1, static_cast<int>(std::max<int64_t>(left_ms, 0))) != 1) return false;
  sys::drain_eventfd(fd.fd);
  return true;
}

Status RouterReader::why_nothing_came() noexcept {
  if (device_.read32(rail::nhi::kRegCapabilities) == rail::nhi::kDeviceGone) {
    return Status(ENODEV, "the controller is gone");
  }
  return Status(ETIMEDOUT,
                "the router does not answer over ring 0: look into dmesg for a fault of the IOMMU");
}

// EAGAIN: nothing is there. What the router tells of itself is not asked for and passed over.
Result<uint32_t> RouterReader::take_answer() {
  rail::nhi::ControlPacketView view;
  while (ring_.peek(view)) {
    ControlPacket packet;
    const PacketError wrong = decode_control_packet(view.pdf, view.bytes, packet);
    ring_.consume();
    if (wrong != PacketError::kNone) return Status(EPROTO, "the router's answer is damaged");
    if (const auto* reply = std::get_if<ReadReply>(&packet);
        reply != nullptr && reply->address.sequence == sequence_ && reply->data.size() == 1) {
      return reply->data.span()[0];
    }
  }
  return Status(EAGAIN);
}

}  // namespace tbt::tool
