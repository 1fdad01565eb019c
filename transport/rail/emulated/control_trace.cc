#include "rail/emulated/control_trace.h"

#include <cstdio>

namespace tbt::rail::emulated {

using namespace nhi;

void ControlTrace::write32(uint32_t offset, uint32_t value) noexcept {
  // The descriptors are the driver's until the doorbell is rung.
  if (offset == tx_ring_register(0, kRingIndex)) show(tx_, value >> 16);
  device_.write32(offset, value);
  if (offset == tx_options_register(0) && (value & kOptionEnable) == 0) tx_.next = 0;
  if (offset == rx_options_register(0) && (value & kOptionEnable) == 0) rx_.next = 0;
  show_received();
}

int64_t ControlTrace::advance(int64_t now_ns) noexcept {
  const int64_t next = device_.advance(now_ns);
  show_received();
  return next;
}

void ControlTrace::show_received() noexcept {
  if ((device_.read32(rx_options_register(0)) & kOptionEnable) == 0) return;
  show(rx_, device_.read32(rx_ring_register(0, kRingIndex)) >> 16);
}

// Everything up to the descriptor `end`.
void ControlTrace::show(Side& side, uint32_t end) noexcept {
  const uint32_t size = device_.read32(side.base + kRingSize) & 0xffff;
  if (end >= size || side.next >= size) return;
  for (; side.next != end; side.next = (side.next + 1) % size) {
    const Descriptor* const d = descriptor(side, side.next);
    if (d == nullptr) continue;
    const uint32_t word = d->word.load(std::memory_order_acquire);
    const uint32_t length = word_length(word);
    const std::byte* const data = memory_.find(d->address.load(std::memory_order_relaxed), length);
    if (data != nullptr) sink_({side.sent, word_eof(word), {data, length}});
  }
}

const Descriptor* ControlTrace::descriptor(const Side& side, uint32_t index) noexcept {
  const uint64_t base = device_.read32(side.base) | uint64_t{device_.read32(side.base + 4)} << 32;
  return reinterpret_cast<const Descriptor*>(
      memory_.find(base + index * sizeof(Descriptor), sizeof(Descriptor)));
}

std::string trace_line(int64_t now_ns, const ControlTrace::Packet& packet) {
  char head[64];
  std::snprintf(
      head, sizeof head, "%lld.%06lld %s pdf %u", static_cast<long long>(now_ns / 1000000000),
      static_cast<long long>(now_ns / 1000 % 1000000), packet.sent ? "tx" : "rx", packet.pdf);
  std::string line = head;
  for (size_t i = 0; i < packet.bytes.size(); i++) {
    char byte[8];
    std::snprintf(byte, sizeof byte, "%s%02x", i % 4 == 0 ? " " : "",
                  std::to_integer<unsigned>(packet.bytes[i]));
    line += byte;
  }
  return line;
}

}  // namespace tbt::rail::emulated
