#include "rail/emulated/nhi_model.h"

#include <algorithm>
#include <bit>

#include "rail/nhi/quirks.h"
#include "sys/barrier.h"

namespace tbt::rail::emulated {
namespace {

using namespace nhi;

constexpr uint64_t kIovaBase = 0x1'0000'0000;  // not the identity, so that a mix-up is noticed
constexpr int64_t kSweepNs = 10 * 1000 * 1000;

bool in(uint32_t offset, uint32_t base, uint32_t bytes) noexcept {
  return offset >= base && offset - base < bytes;
}

uint32_t get(const Register& reg) noexcept { return reg.load(std::memory_order_seq_cst); }
void put(Register& reg, uint32_t value) noexcept { reg.store(value, std::memory_order_seq_cst); }

}  // namespace

// Controllers of the flavour: Barlow Ridge, Maple Ridge, Strix Halo.
PciIdentity NhiModel::identity() const noexcept {
  if (is_amd(fabric_, number_)) return {kVendorAmd, 0x158d};
  return {kVendorIntel, static_cast<uint16_t>(fabric_.usb4_v2 ? 0x5781 : 0x1137)};
}

// ---- reading

uint32_t NhiModel::read32(uint32_t offset) noexcept {
  if (get(nhi_.removed) != 0) return kDeviceGone;
  constexpr uint32_t kRings = kHopsMax * kRingStride;
  constexpr uint32_t kOptions = kHopsMax * kOptionsStride;
  if (in(offset, kRegTxRingBase, kRings)) {
    const uint32_t hop = offset / kRingStride;
    return read_ring(nhi_.tx[hop], true, hop, offset % kRingStride);
  }
  if (in(offset, kRegRxRingBase, kRings)) {
    const uint32_t hop = (offset - kRegRxRingBase) / kRingStride;
    return read_ring(nhi_.rx[hop], false, hop, offset % kRingStride);
  }
  if (in(offset, kRegTxOptionsBase, kOptions)) {
    const uint32_t at = offset - kRegTxOptionsBase;
    return at % kOptionsStride == 0 ? get(nhi_.tx[at / kOptionsStride].options) : 0;
  }
  if (in(offset, kRegRxOptionsBase, kOptions)) {
    const uint32_t at = offset - kRegRxOptionsBase;
    const RingRegisters& regs = nhi_.rx[at / kOptionsStride];
    if (at % kOptionsStride == 0) return get(regs.options);
    return at % kOptionsStride == 4 ? get(regs.pdf_masks) : 0;
  }
  if (in(offset, kRegNotify, 0x2000)) return read_interrupts(offset);
  return read_misc(offset);
}

uint32_t NhiModel::read_ring(const RingRegisters& regs, bool tx, uint32_t hop,
                             uint32_t field) noexcept {
  if (field == 0) return get(regs.base_low);
  if (field == 4) return get(regs.base_high);
  if (field == kRingSize) return get(regs.size);
  const DmaEngine* engine = tx ? engines_.flow(number_, hop) : engines_.feeder(regs);
  uint32_t own_half = get(regs.own_half);
  if (engine != nullptr) own_half = tx ? engine->indices().tx : engine->indices().rx;
  return tx ? get(regs.index) << 16 | own_half : own_half << 16 | get(regs.index);
}

uint32_t NhiModel::read_interrupts(uint32_t offset) noexcept {
  if (in(offset, kRegNotify, kRegInterruptClear - kRegNotify + 4) && offset != kRegInterruptClear) {
    Register& status = nhi_.status[std::min<size_t>((offset - kRegNotify) / 4, 2)];
    return is_amd(fabric_, number_) ? get(status) : status.exchange(0, std::memory_order_seq_cst);
  }
  if (in(offset, kRegInterruptMask, 8)) return get(nhi_.mask[(offset - kRegInterruptMask) / 4]);
  if (in(offset, kRegThrottling, 4 * kVectorsMax)) {
    return get(nhi_.throttling[(offset - kRegThrottling) / 4]);
  }
  if (in(offset, kRegVectorAllocation, 32)) {
    return get(nhi_.vectors[(offset - kRegVectorAllocation) / 4]);
  }
  return read_misc(offset);
}

uint32_t NhiModel::version() const noexcept { return fabric_.usb4_v2 ? kCapabilityUsb4V2 : 0x20; }

uint32_t NhiModel::read_misc(uint32_t offset) noexcept {
  switch (offset) {
    case kRegCapabilities:
      return fabric_.hop_count | version() << 16;
    case kRegDmaMisc:
      return get(nhi_.dma_misc);
    case kRegInboxData:
      return get(nhi_.inbox_data);
    case kRegInboxCommand:
      return get(nhi_.inbox_command);
    default:
      return 0;  // reset registers: done at once; outbox and firmware status: no firmware manager
  }
}

// ---- writing

void NhiModel::write32(uint32_t offset, uint32_t value) noexcept {
  sys::doorbell();
  if (get(nhi_.removed) != 0) return;
  constexpr uint32_t kRings = kHopsMax * kRingStride;
  constexpr uint32_t kOptions = kHopsMax * kOptionsStride;
  if (in(offset, kRegTxRingBase, kRings)) {
    write_tx_ring(offset / kRingStride, offset % kRingStride, value);
  } else if (in(offset, kRegRxRingBase, kRings)) {
    write_rx_ring((offset - kRegRxRingBase) / kRingStride, offset % kRingStride, value);
  } else if (in(offset, kRegTxOptionsBase, kOptions)) {
    const uint32_t at = offset - kRegTxOptionsBase;
    const uint32_t hop = at / kOptionsStride;
    if (at % kOptionsStride == 0) write_options(nhi_.tx[hop], true, hop, value);
  } else if (in(offset, kRegRxOptionsBase, kOptions)) {
    const uint32_t at = offset - kRegRxOptionsBase;
    const uint32_t hop = at / kOptionsStride;
    if (at % kOptionsStride == 0) write_options(nhi_.rx[hop], false, hop, value);
    if (at % kOptionsStride == 4) put(nhi_.rx[hop].pdf_masks, value);
  } else if (in(offset, kRegNotify, 0x2000)) {
    write_interrupts(offset, value);
  } else {
    write_misc(offset, value);
  }
}

void NhiModel::write_tx_ring(uint32_t hop, uint32_t field, uint32_t value) noexcept {
  if (field == kRingIndex) return ring_tx_doorbell(hop, value);
  write_ring_setup(nhi_.tx[hop], field, value);
}

void NhiModel::write_rx_ring(uint32_t hop, uint32_t field, uint32_t value) noexcept {
  if (field == kRingIndex) return ring_rx_doorbell(hop, value);
  write_ring_setup(nhi_.rx[hop], field, value);
}

void NhiModel::write_ring_setup(RingRegisters& regs, uint32_t field, uint32_t value) noexcept {
  if ((get(regs.options) & kOptionEnable) != 0) count_misuse(nhi_, Misuse::kChangedWhileEnabled);
  if (field == 0) put(regs.base_low, value);
  if (field == 4) put(regs.base_high, value);
  if (field == kRingSize) put(regs.size, value & 0xffff);
}

// A doorbell that changes nothing is a driver's repair after a death: look at the engine closely.
void NhiModel::ring_tx_doorbell(uint32_t hop, uint32_t value) noexcept {
  RingRegisters& regs = nhi_.tx[hop];
  const uint32_t producer = value >> 16;
  if ((value & 0xffff) != 0) count_misuse(nhi_, Misuse::kWrongHalf);
  if ((regs.options.load(std::memory_order_relaxed) & kOptionEnable) == 0) {
    if (value != 0) count_misuse(nhi_, Misuse::kDoorbellOnStoppedRing);
    return put(regs.index, 0);
  }
  if (producer >= regs.size.load(std::memory_order_relaxed)) {
    return count_misuse(nhi_, Misuse::kIndexBeyondRing);
  }
  const uint32_t old = regs.index.load(std::memory_order_relaxed);
  regs.index.store(producer, std::memory_order_release);
  if (hop == 0) return control_.transmit(number_);
  if (DmaEngine* engine = engines_.flow(number_, hop); engine != nullptr) {
    old == producer ? engine->run_thoroughly() : engine->run();
  }
}

void NhiModel::ring_rx_doorbell(uint32_t hop, uint32_t value) noexcept {
  RingRegisters& regs = nhi_.rx[hop];
  const uint32_t posted = value & 0xffff;
  if (value >> 16 != 0) count_misuse(nhi_, Misuse::kWrongHalf);
  if ((get(regs.options) & kOptionEnable) == 0) {
    if (value != 0) count_misuse(nhi_, Misuse::kDoorbellOnStoppedRing);
    return put(regs.index, 0);
  }
  if (posted >= get(regs.size)) return count_misuse(nhi_, Misuse::kIndexBeyondRing);
  const uint32_t old = regs.index.exchange(posted, std::memory_order_seq_cst);
  if (get(regs.primed) == 0) put(regs.primed, 1);
  if (hop == 0) return control_.receive(number_);
  if (DmaEngine* engine = engines_.feeder(regs); engine != nullptr) {
    old == posted ? engine->run_thoroughly() : engine->posted();
  }
}

// Enabling takes two writes when end-to-end flow control is wanted: it is added to the enabled
// ring.
bool NhiModel::check_options(const RingRegisters& regs, uint32_t old, uint32_t value) noexcept {
  if ((old & kOptionEnable) == 0) {
    if ((value & kOptionE2e) != 0) {
      count_misuse(nhi_, Misuse::kE2eBeforeEnable);
      return false;
    }
    const bool programmed = get(regs.size) >= 2 && (get(regs.base_low) | get(regs.base_high)) != 0;
    if (!programmed) count_misuse(nhi_, Misuse::kEnabledUnprogrammed);
    return programmed;
  }
  const bool adds_e2e = (value & kOptionE2e) != 0 && (old & kOptionE2e) == 0;
  if (!adds_e2e) count_misuse(nhi_, Misuse::kEnabledTwice);
  return adds_e2e;
}

void NhiModel::write_options(RingRegisters& regs, bool tx, uint32_t hop, uint32_t value) noexcept {
  if ((value & kOptionEnable) == 0) {
    stop_ring(regs, tx, hop);
    return put(regs.options, value);
  }
  if (check_options(regs, get(regs.options), value)) put(regs.options, value);
}

// After this the ring begins again at index 0, and the engine does not touch its memory.
void NhiModel::stop_ring(RingRegisters& regs, bool tx, uint32_t hop) noexcept {
  put(regs.options, 0);
  control_.stop_ring(number_, hop, tx);
  put(regs.primed, 0);
  put(regs.index, 0);
}

void NhiModel::write_interrupts(uint32_t offset, uint32_t value) noexcept {
  if (in(offset, kRegInterruptClear, 12)) {
    nhi_.status[(offset - kRegInterruptClear) / 4].fetch_and(~value, std::memory_order_seq_cst);
  } else if (in(offset, kRegInterruptMask, 8)) {
    write_mask((offset - kRegInterruptMask) / 4, value);
  } else if (in(offset, kRegInterruptMaskClear, 8)) {
    Register& mask = nhi_.mask[(offset - kRegInterruptMaskClear) / 4];
    mask.fetch_and(~value, std::memory_order_seq_cst);
  } else if (in(offset, kRegThrottling, 4 * kVectorsMax)) {
    put(nhi_.throttling[(offset - kRegThrottling) / 4], value & 0xffff);
  } else if (in(offset, kRegVectorAllocation, 32)) {
    put(nhi_.vectors[(offset - kRegVectorAllocation) / 4], value);
  } else {
    write_misc(offset, value);
  }
}

// As Linux drives a controller, what came while its ring was masked must fire as it is unmasked:
// Linux unmasks after its last look at the ring and clears nothing, on Intel (where firing clears
// the status) as on AMD. On Intel's without that it stays pending and nothing fires for that ring
// until somebody clears it, which is the worst that a driver has to live with.
void NhiModel::write_mask(uint32_t dword, uint32_t value) noexcept {
  const uint32_t old = nhi_.mask[dword].exchange(value, std::memory_order_seq_cst);
  const bool fires = is_amd(fabric_, number_) || (get(nhi_.dma_misc) & kDmaMiscAutoClear) != 0;
  if (!fires) return;
  for (uint32_t left = value & ~old & get(nhi_.status[dword]); left != 0; left &= left - 1) {
    const auto bit = static_cast<uint32_t>(std::countr_zero(left));
    raise_interrupt(host_, dword * 32 + bit, /*announced=*/true);
  }
}

void NhiModel::write_misc(uint32_t offset, uint32_t value) noexcept {
  const bool resets = offset == (fabric_.usb4_v2 ? kRegResetV2 : kRegResetV1);
  if (resets && (value & 1) != 0) reset_router();
  if (offset == kRegDmaMisc) put(nhi_.dma_misc, value);
  if (offset == kRegInboxData) put(nhi_.inbox_data, value);
  if (offset == kRegInboxCommand) {
    const bool request =
        (value & kInboxRequest) != 0;  // nobody is there to answer: an error, at once
    put(nhi_.inbox_command, request ? (value & ~kInboxRequest) | kInboxError : value);
  }
}

void NhiModel::reset_router() noexcept {
  for (uint32_t hop = 0; hop < kHopsMax; ++hop) {
    stop_ring(nhi_.tx[hop], true, hop);
    stop_ring(nhi_.rx[hop], false, hop);
  }
  for (Register& mask : nhi_.mask) put(mask, 0);
  for (Register& status : nhi_.status) put(status, 0);
  control_.reset_router(number_);
}

// ---- addresses, interrupts, time

Result<uint64_t> NhiModel::dma_map(uint64_t offset, uint64_t bytes) {
  if (host_.memory == nullptr) return Status(ENODEV, "the host's memory is not attached");
  const uint64_t all = host_.memory->bytes();
  if (bytes == 0 || bytes % 4096 != 0 || offset % 4096 != 0)
    return Status(EINVAL, "not whole pages");
  if (bytes > all || offset > all - bytes) return Status(EINVAL, "outside the host's memory");
  for (IovaRange& range : nhi_.iova) {
    if (range.bytes.load(std::memory_order_relaxed) != 0) continue;
    range.start.store(kIovaBase + offset, std::memory_order_relaxed);
    range.offset.store(offset, std::memory_order_relaxed);
    range.bytes.store(bytes, std::memory_order_release);
    nhi_.iova_generation.fetch_add(1, std::memory_order_release);
    return kIovaBase + offset;
  }
  return Status(ENOSPC, "too many DMA mappings");
}

Status NhiModel::dma_unmap(uint64_t iova, uint64_t bytes) {
  for (IovaRange& range : nhi_.iova) {
    if (range.start.load(std::memory_order_relaxed) != iova) continue;
    if (range.bytes.load(std::memory_order_relaxed) != bytes) continue;
    range.bytes.store(0, std::memory_order_release);
    nhi_.iova_generation.fetch_add(1, std::memory_order_release);
    return {};
  }
  return Status(EINVAL, "no such DMA mapping");
}

int NhiModel::interrupt_fd(uint32_t vector) const noexcept {
  return vector < kVectorsMax ? host_.interrupt_fd : -1;
}

// Ideal cables need no time; every now and then somebody looks for what a killed process left
// lying.
int64_t NhiModel::advance(int64_t now_ns) noexcept {
  const bool timed = fabric_.timed.load(std::memory_order_relaxed) != 0;
  const bool sweep = now_ns >= next_sweep_ns_.load(std::memory_order_relaxed);
  const bool guest = host_.guest != nullptr;  // others leave to us what only we can bring out
  if (!timed && !sweep && !guest) return INT64_MAX;
  if (sweep) next_sweep_ns_.store(now_ns + kSweepNs, std::memory_order_relaxed);
  int64_t next = INT64_MAX;
  if (sweep || guest) control_.receive(number_);
  for (uint32_t hop = 1; hop < fabric_.hop_count; ++hop) {
    for (DmaEngine* engine : {engines_.flow(number_, hop), engines_.feeder(nhi_.rx[hop])}) {
      if (engine == nullptr || !engine->is_used()) continue;
      if (sweep) engine->sweep();
      if (timed || guest) next = std::min(next, engine->advance(now_ns));
    }
  }
  return next;
}

}  // namespace tbt::rail::emulated
