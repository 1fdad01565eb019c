// The fields of a router's configuration spaces that the connection manager reads and writes:
// offsets in dwords and bits, named after drivers/thunderbolt/tb_regs.h.
#pragma once

#include <cstdint>

namespace tbt::fabric {

// Bits high:low of a word.
constexpr uint32_t bits(uint32_t word, unsigned high, unsigned low) noexcept {
  return static_cast<uint32_t>(word >> low & ((uint64_t{1} << (high - low + 1)) - 1));
}
constexpr uint32_t with_bits(uint32_t word, unsigned high, unsigned low, uint32_t value) noexcept {
  const auto mask = static_cast<uint32_t>(((uint64_t{1} << (high - low + 1)) - 1) << low);
  return (word & ~mask) | (value << low & mask);
}

// ---- router space

// 0: vendor 15:0, device 31:16. 1: upstream adapter 13:8, highest adapter 19:14, depth 22:20. 2, 3:
// route, and in 3 the bit below. 4: notification time-out 7:0, version of the manager 15:8, USB4
// version 31:24 (its upper three bits are the major one).
inline constexpr uint16_t kRouterIds = 0;
inline constexpr uint32_t kRouterEnumerated = 1u << 31;
inline constexpr uint32_t kNotificationTimeout = 0x0a;  // ms
inline constexpr uint32_t kManagerV1 = 0x10, kManagerV2 = 0x20;
inline constexpr uint16_t kRouterStatus = 6;
inline constexpr uint32_t kStatusRouterReady = 1u << 24;
inline constexpr uint32_t kStatusConfigurationReady = 1u << 25;
inline constexpr uint16_t kRouterUniqueId = 7;
// Router operations: 16 dwords of data, metadata, and the command.
inline constexpr uint16_t kOperationData = 9, kOperationMetadata = 25, kOperationCommand = 26;
inline constexpr uint32_t kOperationBusy = 1u << 31, kOperationUnsupported = 1u << 30;
inline constexpr uint32_t kOperationBufferAllocation = 0x33;
inline constexpr uint32_t kBufferMaxHi = 5;  // dwords of its answer: parameter 15:0, value 31:16

// ---- adapter space

// 1: first capability 7:0. 2: type 23:0. 4: all buffers 29:20, and the lock. 5: below.
inline constexpr uint32_t kAdapterLane = 1, kAdapterNhi = 2;
inline constexpr uint16_t kAdapterLocked = 4;
inline constexpr uint32_t kAdapterLock = 1u << 31;
inline constexpr uint16_t kAdapterHops = 5;  // HopIDs: highest in 10:0, highest out 21:11
inline constexpr uint32_t kHotPlugOff = 1u << 31;
// Every capability begins with: next one 7:0, its number 15:8.
inline constexpr uint32_t kCapabilityLane = 1, kCapabilityUsb4Port = 6;
// The lane's: +0 supported speed 19:16, width 25:20; +1 target speed 3:0, width 5:4, power states,
// current speed 19:16, width 25:20, state 29:26.
inline constexpr uint32_t kLaneClStates = 7u << 10;
inline constexpr uint32_t kLaneDisable = 1u << 14, kLaneBond = 1u << 15;
inline constexpr uint32_t kSpeedGen2 = 8, kSpeedGen3 = 4, kSpeedGen4 = 2;
inline constexpr uint32_t kWidthSingle = 1, kWidthDual = 2, kWidthAsymTx = 4, kWidthAsymRx = 8;
inline constexpr uint32_t kTargetWidthSingle = 1, kTargetWidthDual = 3;
inline constexpr uint32_t kLaneDisabled = 0, kLaneTraining = 1, kLaneUpFirst = 2, kLaneUpLast = 6;
// The USB4 port's.
inline constexpr uint16_t kPortControl = 0x13;
inline constexpr uint32_t kPortReset = 1u << 0;
inline constexpr uint32_t kPortConfigured = 1u << 3;
inline constexpr uint32_t kPortInterDomain = 1u << 4;  // PID

// ---- path space: two dwords per HopID of the adapter by which packets come in

inline constexpr uint32_t kPathEnable = 1u << 31;       // word 0
inline constexpr uint32_t kPathIngressFlow = 1u << 24;  // word 1, and the rest
inline constexpr uint32_t kPathEgressFlow = 1u << 25;
inline constexpr uint32_t kPathIngressShared = 1u << 26;
inline constexpr uint32_t kPathEgressShared = 1u << 27;
inline constexpr uint32_t kPathPending = 1u << 28;
inline constexpr uint32_t kPathPriority = 5, kPathWeight = 1;
inline constexpr uint32_t kPathCredits = 14;  // as the kernel's dma_credits

}  // namespace tbt::fabric
