// World: a small emulated fabric in this process for the tests of the rails, and one-line senders
// and receivers. Test frames carry their slot in byte 0 and a number in bytes 4-7, so that the
// tests need no wire format.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <memory>
#include <vector>

#include "rail/emulated/emulated_fabric.h"
#include "rail/host_memory.h"
#include "rail/shared_rail.h"
#include "rail/shared_state.h"
#include "sys/event_fd.h"

namespace tbt::rail::test {

inline SlotId classify(std::span<const std::byte> head, uint8_t, uint8_t) noexcept {
  return head.empty() || head[0] == std::byte{0xff} ? kNoSlot : static_cast<SlotId>(head[0]);
}

struct WorldConfig {
  uint32_t hosts = 2;
  HostConfig host{.cables = 1, .ring_entries = 16, .rx_buffers = 48};
  emulated::FabricConfig fabric;  // hosts and cables are filled in when left empty
  bool bring_up = true;
};

class World {
 public:
  explicit World(WorldConfig config = {}) {
    auto& f = config.fabric;
    if (f.hosts == 0) f.hosts = config.hosts;
    if (f.cables.empty()) f.cables = {{0, 1, 0, 0}};
    f.params.resize(f.cables.size());
    auto made = emulated::EmulatedFabric::create(f);
    EXPECT_TRUE(made) << made.error().text();
    fabric = std::move(*made);
    for (uint32_t h = 0; h < f.hosts; ++h) add_host(h, config.host);
    for (uint32_t h = 0; h < f.hosts && config.bring_up; ++h) bring_up(h);
  }

  void bring_up(uint32_t host) {
    for (uint32_t r = 0; r < memories[host]->cables(); ++r) {
      if (fabric->cable_of(host, r) == emulated::kCablesMax) continue;
      const Status s = bring_up_nhi_rail(*memories[host], r, *devices[host]);
      EXPECT_TRUE(s) << s.text();
    }
  }

  // Also marks the slot as attached.
  std::unique_ptr<Rail> open(uint32_t host, SlotId slot, uint32_t rail = 0) {
    memories[host]->slot(slot).state.store(SlotState::kAttached);
    return open_nhi_rail(*memories[host], rail, *devices[host], slot, classify);
  }
  std::unique_ptr<Rail> open_loopback(uint32_t host, SlotId slot) {
    memories[host]->slot(slot).state.store(SlotState::kAttached);
    return open_loopback_rail(*memories[host], slot, classify);
  }

  // A World on the same memory at other addresses, as another process has it.
  std::unique_ptr<World> map_again() {
    auto world = std::unique_ptr<World>(new World(nullptr));
    world->fabric = std::move(*emulated::EmulatedFabric::map(sys::UniqueFd(dup(fabric->fd()))));
    for (size_t h = 0; h < memories.size(); ++h) {
      world->memories.push_back(std::move(*HostMemory::map(sys::UniqueFd(dup(memories[h]->fd())))));
      world->interrupts.emplace_back(dup(interrupts[h].get()));
      world->fabric->attach_host(static_cast<uint32_t>(h), world->memories[h].get(),
                                 world->interrupts[h].get());
      world->devices.push_back(world->fabric->open_device(static_cast<uint32_t>(h)));
    }
    return world;
  }

  std::unique_ptr<emulated::EmulatedFabric> fabric;
  std::vector<std::unique_ptr<HostMemory>> memories;
  std::vector<sys::UniqueFd> interrupts;
  std::vector<std::unique_ptr<nhi::PciDevice>> devices;

 private:
  explicit World(std::nullptr_t) {}

  void add_host(uint32_t h, const HostConfig& config) {
    auto memory = HostMemory::create(config);
    EXPECT_TRUE(memory) << memory.error().text();
    memories.push_back(std::move(*memory));
    interrupts.push_back(std::move(*sys::make_eventfd()));
    fabric->attach_host(h, memories[h].get(), interrupts[h].get());
    devices.push_back(fabric->open_device(h));
  }
};

inline constexpr TxFrame whole(uint32_t length) { return {length, 1, 1}; }
inline constexpr TxFrame head(uint32_t length) { return {length, 1, kEofHead}; }
inline constexpr TxFrame payload(uint32_t length) { return {length, 3, kEofPayload}; }

inline void fill(std::byte* buffer, SlotId slot, uint32_t number, uint32_t length) {
  std::memset(buffer, static_cast<int>(number & 0xff), length);
  buffer[0] = static_cast<std::byte>(slot);
  if (length >= 8) std::memcpy(buffer + 4, &number, sizeof number);
}

inline uint32_t number_of(const RxFrame& frame) {
  uint32_t number = 0;
  std::memcpy(&number, frame.data + 4, sizeof number);
  return number;
}

// Sends one frame (or a head and its payload); false if there was no room for all.
inline bool send(Rail& rail, SlotId slot, uint32_t number, std::span<const TxFrame> frames) {
  std::array<std::byte*, 8> buffers{};
  const size_t n = rail.tx_begin(std::span(buffers).first(frames.size()));
  if (n == 0) return false;
  if (n < frames.size()) {
    rail.tx_commit({});
    return false;
  }
  for (size_t i = 0; i < n; ++i) fill(buffers[i], slot, number, frames[i].length);
  rail.tx_commit(frames);
  return true;
}
inline bool send(Rail& rail, SlotId slot, uint32_t number, uint32_t length = 64) {
  const TxFrame frame = whole(length);
  return send(rail, slot, number, std::span(&frame, 1));
}

// Takes up to `max` packets and gives their buffers back; returns their numbers.
inline std::vector<uint32_t> receive(Rail& rail, size_t max = 64) {
  std::vector<RxPacket> packets(max);
  const size_t n = rail.rx_burst(packets);
  std::vector<uint32_t> numbers;
  for (size_t i = 0; i < n; ++i) numbers.push_back(number_of(packets[i].head));
  rail.rx_release(std::span(packets).first(n));
  return numbers;
}

}  // namespace tbt::rail::test
