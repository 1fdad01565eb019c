#include "rail/emulated/vfio_user_device.h"

#include <algorithm>

#include "base/bytes.h"
#include "rail/nhi/nhi_regs.h"
#include "sys/event_fd.h"

namespace tbt::rail::emulated {
namespace {

using namespace vfio_user;

// <linux/vfio.h>, VFIO_PCI_*: BARs 0 to 5, ROM, configuration space, VGA; INTx, MSI, MSI-X, error,
// request.
constexpr uint32_t kRegions = 9, kRegionBar0 = 0, kRegionConfig = 7;
constexpr uint32_t kIrqs = 5, kIrqMsix = 2;

constexpr uint16_t kMajor = 0, kMinor = 0;
constexpr const char* kCapabilities =
    R"({"capabilities":{"max_msg_fds":16,"max_data_xfer_size":4096,"pgsizes":4096,)"
    R"("max_dma_maps":65535,"write_multiple":false}})";
static_assert(kMessageFdsMax == 16 && kTransferBytesMax == 4096 && IovaTable::kPiecesMax == 65535);

uint64_t region_bytes(uint32_t index) noexcept {
  if (index == kRegionBar0) return kBarBytes;
  return index == kRegionConfig ? PciConfigSpace::kBytes : 0;
}

// Registers are 32 bits wide.
bool is_register_access(uint64_t offset, size_t bytes) noexcept {
  return offset % 4 == 0 && (bytes == 4 || bytes == 8);
}

// An access that the device has an answer for.
bool is_access(uint32_t region, uint64_t offset, size_t bytes) noexcept {
  const uint64_t size = region_bytes(region);
  if (bytes == 0 || offset > size || bytes > size - offset) return false;
  return region != kRegionBar0 || is_register_access(offset, bytes);
}

}  // namespace

Status VfioUserDevice::handle(const Header& header, std::span<const std::byte> payload,
                              std::vector<sys::UniqueFd> fds, Message& reply) {
  reply.clear();
  const auto request = decode_request(header, payload);
  if (!request) return request.error();
  if (greeted_ == std::holds_alternative<Version>(request.value())) {
    return Status(EPROTO, greeted_ ? "VERSION a second time" : "VERSION was not the first message");
  }
  Caller caller{header, fds};
  auto answered = std::visit([&](const auto& r) { return answer(caller, r); }, request.value());
  if (!answered && answered.error().code() == EPROTO) return answered.error();
  if (header.no_reply) return {};
  reply = answered ? std::move(answered).value() : encode_error(header, answered.error().code());
  return {};
}

VfioUserDevice::Reply VfioUserDevice::answer(Caller& caller, const Version& version) {
  if (version.major != kMajor) return Status(EPROTO, "another major version of vfio-user");
  greeted_ = true;
  return encode_version(caller.header, {kMajor, kMinor, kCapabilities});
}

VfioUserDevice::Reply VfioUserDevice::answer(Caller& caller, const DmaMap& map) {
  if (caller.fds.size() > 1) return Status(EPROTO, "DMA_MAP with several descriptors");
  const sys::UniqueFd none;
  const sys::UniqueFd& fd = caller.fds.empty() ? none : caller.fds[0];
  const Status s = memory_.map(map.iova, map.bytes, fd, map.file_offset, map.writeable);
  if (!s) return s;
  memory_changed_();
  return encode_done(caller.header);
}

VfioUserDevice::Reply VfioUserDevice::answer(Caller& caller, const DmaUnmap& unmap) {
  if (unmap.all) {
    memory_.clear();
  } else if (const Status s = memory_.unmap(unmap.iova, unmap.bytes); !s) {
    return s;
  }
  memory_changed_();
  return encode_dma_unmap(caller.header, unmap);
}

VfioUserDevice::Reply VfioUserDevice::answer(Caller& caller, const DeviceGetInfo&) {
  return encode_device_info(caller.header, kRegions, kIrqs);
}

VfioUserDevice::Reply VfioUserDevice::answer(Caller& caller, const GetRegionInfo& get) {
  if (get.index >= kRegions) return Status(EINVAL);
  const uint64_t bytes = region_bytes(get.index);
  return encode_region_info(caller.header, {get.index, bytes != 0, bytes != 0, bytes});
}

VfioUserDevice::Reply VfioUserDevice::answer(Caller& caller, const GetIrqInfo& get) {
  if (get.index >= kIrqs) return Status(EINVAL);
  return encode_irq_info(caller.header, {get.index, get.index == kIrqMsix ? kMsixVectors : 0});
}

// Vectors get their eventfds, or lose them, or (without data) are fired by the machine itself.
VfioUserDevice::Reply VfioUserDevice::answer(Caller& caller, const SetIrqs& set) {
  const bool takes_fds = set.data == SetIrqs::Data::kEventFd;
  if (!caller.fds.empty() && (!takes_fds || caller.fds.size() != set.count)) {
    return Status(EPROTO, "SET_IRQS disagrees with its descriptors");
  }
  const bool in_range =
      set.start <= kMsixVectors && set.count <= kMsixVectors - set.start;  // no overflow
  if (set.index != kIrqMsix || !in_range || set.action != SetIrqs::Action::kTrigger) {
    return Status(EINVAL);
  }
  const bool all_off = set.data == SetIrqs::Data::kNone && set.count == 0;
  const uint32_t first = all_off ? 0 : set.start;
  const uint32_t end = all_off ? kMsixVectors : set.start + set.count;
  for (uint32_t v = first; v < end; v++) {
    const uint32_t i = v - first;
    if (all_off || takes_fds) {
      assign(v, i < caller.fds.size() ? std::move(caller.fds[i]) : sys::UniqueFd());
    } else if (set.data == SetIrqs::Data::kNone || set.bools[i] != std::byte{0}) {
      fire(v);
    }
  }
  return encode_done(caller.header);
}

VfioUserDevice::Reply VfioUserDevice::answer(Caller& caller, const RegionRead& read) {
  if (!is_access(read.region, read.offset, read.count)) return Status(EINVAL);
  std::array<std::byte, kTransferBytesMax> buffer;
  const std::span<std::byte> data = std::span(buffer).first(read.count);
  const auto offset = static_cast<uint32_t>(read.offset);
  read.region == kRegionBar0 ? read_bar(offset, data) : config_.read(offset, data);
  return encode_region_read(caller.header, read, data);
}

VfioUserDevice::Reply VfioUserDevice::answer(Caller& caller, const RegionWrite& write) {
  if (!is_access(write.region, write.offset, write.data.size())) return Status(EINVAL);
  const auto offset = static_cast<uint32_t>(write.offset);
  if (write.region == kRegionBar0) {
    write_bar(offset, write.data);
  } else {
    const bool was_bus_master = config_.is_bus_master();
    if (config_.write(offset, write.data)) reset();
    if (config_.is_bus_master() != was_bus_master) memory_changed_();
  }
  return encode_region_write(caller.header, write);
}

VfioUserDevice::Reply VfioUserDevice::answer(Caller& caller, const DeviceReset&) {
  reset();
  return encode_done(caller.header);
}

VfioUserDevice::Reply VfioUserDevice::answer(Caller&, const Unknown&) { return Status(ENOTSUP); }

// The client keeps the MSI-X table itself, and asks for the pending bits.
void VfioUserDevice::read_bar(uint32_t offset, std::span<std::byte> out) noexcept {
  if (!config_.decodes_memory()) {
    std::ranges::fill(out, std::byte{0xff});
    return;
  }
  if (offset >= kMsixTableOffset) return read_pending(offset, out);
  for (size_t i = 0; i < out.size(); i += 4) {
    base::store_le(out.data() + i, controller_->read32(offset + static_cast<uint32_t>(i)));
  }
}

void VfioUserDevice::read_pending(uint32_t offset, std::span<std::byte> out) const noexcept {
  std::ranges::fill(out, std::byte{0});
  if (offset == kMsixPbaOffset) base::store_le(out.data(), pending_);
}

void VfioUserDevice::write_bar(uint32_t offset, std::span<const std::byte> bytes) noexcept {
  if (!config_.decodes_memory() || offset >= kMsixTableOffset) return;
  for (size_t i = 0; i < bytes.size(); i += 4) {
    controller_->write32(offset + static_cast<uint32_t>(i),
                         base::load_le<uint32_t>(bytes.data() + i));
  }
}

void VfioUserDevice::assign(uint32_t vector, sys::UniqueFd fd) noexcept {
  interrupts_[vector] = std::move(fd);
  const uint32_t bit = 1u << vector;
  if (!interrupts_[vector] || (pending_ & bit) == 0) return;
  pending_ &= ~bit;
  sys::signal_eventfd(interrupts_[vector].get());
}

std::byte* VfioUserDevice::find(uint64_t iova, uint64_t bytes, Reach reach) noexcept {
  return config_.is_bus_master() ? memory_.find(iova, bytes, reach) : nullptr;
}

void VfioUserDevice::fire(uint32_t vector) noexcept {
  if (vector >= kMsixVectors || !config_.is_bus_master()) return;
  if (interrupts_[vector]) {
    sys::signal_eventfd(interrupts_[vector].get());
  } else {
    pending_ |= 1u << vector;
  }
}

// Whichever reset register the controller has; then everything that the function itself keeps.
void VfioUserDevice::reset() noexcept {
  controller_->write32(nhi::kRegResetV1, 1);
  controller_->write32(nhi::kRegResetV2, 1);
  config_.reset();
  memory_changed_();
  pending_ = 0;
}

void VfioUserDevice::disconnect() noexcept {
  reset();
  memory_.clear();
  memory_changed_();
  for (sys::UniqueFd& fd : interrupts_) fd.reset();
  greeted_ = false;
}

}  // namespace tbt::rail::emulated
