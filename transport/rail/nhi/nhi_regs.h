// Registers and descriptors of the NHI (native host interface) of a Thunderbolt / USB4 controller.
// Offsets are in BAR0; h is the ring (hop) number, v the vector. Named after
// drivers/thunderbolt/nhi_regs.h.
//
// All registers are 32 bits, little endian; ring index registers hold two 16-bit halves with
// different owners, and a writer's value for the other half is ignored by the hardware.
#pragma once

#include <atomic>
#include <cstdint>

namespace tbt::rail::nhi {

// 16 * h: +0 base low, +4 base high, +8 indices, +12 size (RX: buffer size in 27:16, 0 is 4096).
// Indices of TX: producer (driver) 31:16, consumer (NHI) 15:0. Of RX: producer (NHI) 31:16,
// consumer (driver, "posted up to") 15:0.
inline constexpr uint32_t kRegTxRingBase = 0x00000;
inline constexpr uint32_t kRegRxRingBase = 0x08000;
inline constexpr uint32_t kRingStride = 16;
inline constexpr uint32_t kRingIndex = 8;
inline constexpr uint32_t kRingSize = 12;

// 32 * h: +0 flags; RX +4: allowed SOF PDFs in 31:16, allowed EOF PDFs in 15:0.
inline constexpr uint32_t kRegTxOptionsBase = 0x19800;
inline constexpr uint32_t kRegRxOptionsBase = 0x29800;
inline constexpr uint32_t kOptionsStride = 32;
inline constexpr uint32_t kOptionIsochronous = 1u << 27;
inline constexpr uint32_t kOptionE2e = 1u << 28;
inline constexpr uint32_t kOptionNoSnoop = 1u << 29;
inline constexpr uint32_t kOptionRaw = 1u << 30;
inline constexpr uint32_t kOptionEnable = 1u << 31;
inline constexpr uint32_t kOptionE2eHopShift = 12;  // RX, 22:12: the TX ring that returns credits
inline constexpr uint32_t kOptionE2eHopMask = 0x7ffu << kOptionE2eHopShift;

// Bits in the order TX, RX, RX overflow: 3 * hop_count of status, 2 * hop_count of mask.
inline constexpr uint32_t kRegNotify = 0x37800;
inline constexpr uint32_t kRegInterruptClear = 0x37808;
inline constexpr uint32_t kRegInterruptMask = 0x38200;  // 1: enabled
inline constexpr uint32_t kRegInterruptMaskClear = 0x38208;
inline constexpr uint32_t kRegThrottling = 0x38c00;  // 4 * v, units of 256 ns
// 4 bits per ring: TX h, RX hop_count + h.
inline constexpr uint32_t kRegVectorAllocation = 0x38c40;

inline constexpr uint32_t kRegCapabilities = 0x39640;  // hop count 10:0, version 23:16
inline constexpr uint32_t kCapabilityUsb4V2 = 0x40;
constexpr uint32_t capability_hops(uint32_t capabilities) noexcept { return capabilities & 0x3ff; }
constexpr uint32_t capability_version(uint32_t capabilities) noexcept {
  return capabilities >> 16 & 0xff;
}
inline constexpr uint32_t kRegResetV1 = 0x39858;
inline constexpr uint32_t kRegDmaMisc = 0x39864;
inline constexpr uint32_t kDmaMiscAutoClear = 1u << 2;        // Intel
inline constexpr uint32_t kDmaMiscNoIsrAutoClear = 1u << 17;  // others
inline constexpr uint32_t kRegResetV2 = 0x39898;              // bit 0, host router reset
inline constexpr uint32_t kRegInboxData = 0x39900;
inline constexpr uint32_t kRegInboxCommand = 0x39904;
inline constexpr uint32_t kInboxRequest = 1u << 31;
inline constexpr uint32_t kInboxError = 1u << 30;
inline constexpr uint32_t kRegOutbox = 0x3990c;
inline constexpr uint32_t kRegFirmwareStatus = 0x39944;

inline constexpr uint32_t kHopsMax = 32;
inline constexpr uint32_t kVectorsMax = 16;
inline constexpr uint32_t kDeviceGone = 0xffffffffu;  // a read of all ones

// A descriptor in host memory. `word`: length 11:0 (0 is 4096), EOF 15:12, SOF 19:16, flags 31:20.
// In an RX descriptor length, SOF and EOF are the NHI's, and stale until it sets kCompleted.
struct alignas(16) Descriptor {
  std::atomic<uint64_t> address;
  std::atomic<uint32_t> word;
  std::atomic<uint32_t> time;
};
static_assert(sizeof(Descriptor) == 16);

inline constexpr uint32_t kIsochronous = 0x1u << 20;  // TX
inline constexpr uint32_t kCrcError = 0x1u << 20;     // RX, completed
inline constexpr uint32_t kCompleted = 0x2u << 20;
inline constexpr uint32_t kPosted = 0x4u << 20;         // set by the driver
inline constexpr uint32_t kBufferOverrun = 0x4u << 20;  // RX, completed: the same bit
inline constexpr uint32_t kRequestInterrupt = 0x8u << 20;

constexpr uint32_t pack_frame(uint32_t length, uint8_t sof, uint8_t eof) noexcept {
  return (length & 0xfffu) | uint32_t{eof} << 12 | uint32_t{sof} << 16;
}
constexpr uint32_t word_length(uint32_t word) noexcept {
  return (word & 0xfffu) == 0 ? 4096 : word & 0xfffu;
}
constexpr uint8_t word_eof(uint32_t word) noexcept {
  return static_cast<uint8_t>(word >> 12 & 0xf);
}
constexpr uint8_t word_sof(uint32_t word) noexcept {
  return static_cast<uint8_t>(word >> 16 & 0xf);
}

constexpr uint32_t tx_ring_register(uint32_t hop, uint32_t field) noexcept {
  return kRegTxRingBase + hop * kRingStride + field;
}
constexpr uint32_t rx_ring_register(uint32_t hop, uint32_t field) noexcept {
  return kRegRxRingBase + hop * kRingStride + field;
}
constexpr uint32_t tx_options_register(uint32_t hop) noexcept {
  return kRegTxOptionsBase + hop * kOptionsStride;
}
constexpr uint32_t rx_options_register(uint32_t hop) noexcept {
  return kRegRxOptionsBase + hop * kOptionsStride;
}

}  // namespace tbt::rail::nhi
