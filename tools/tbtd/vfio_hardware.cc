#include "tbtd/vfio_hardware.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>

#include "fabric/open_host.h"
#include "rail/nhi/nhi_regs.h"
#include "sys/event_fd.h"

namespace tbt::daemon {
namespace {

constexpr size_t kDescriptors = 5;

void drain(int eventfd) {
  uint64_t count = 0;
  while (::read(eventfd, &count, sizeof count) > 0) continue;
}

}  // namespace

// ---- the keeper's part

Result<std::unique_ptr<VfioHolder>> VfioHolder::open(const std::string& address, uint32_t ports,
                                                     rail::nhi::VfioKernel& kernel) {
  std::unique_ptr<VfioHolder> holder(new VfioHolder);
  auto memory = rail::HostMemory::create({.cables = ports}, sys::Pages::kLarge);
  if (!memory) return memory.error();
  holder->memory_ = std::move(memory).value();
  auto wake = sys::make_eventfd();
  if (!wake) return wake.error();
  holder->wake_ = std::move(wake).value();
  auto device =
      rail::nhi::VfioDevice::open({.address = address,
                                   .root = {},
                                   .memory = {holder->memory_->base(), holder->memory_->bytes()},
                                   .take_over = false},
                                  kernel);
  if (!device) return device.error();
  holder->device_ = std::move(device).value();
  const uint32_t hops =
      rail::nhi::capability_hops(holder->device_->read32(rail::nhi::kRegCapabilities));
  const uint32_t first = rail::nhi::quirks_of(holder->device_->identity()).first_data_ring();
  if (first + ports > hops) {
    return Status(EINVAL, "the controller has too few rings for so many ports");
  }
  return holder;
}

Result<std::vector<sys::UniqueFd>> VfioHolder::copies() const {
  const rail::nhi::VfioHandles handles = device_->handles();
  std::vector<sys::UniqueFd> out;
  for (const int fd :
       {memory_->fd(), wake_.get(), handles.container, handles.group, handles.device}) {
    sys::UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 3));
    if (!copy) return Status(errno, "no file descriptor is left");
    out.push_back(std::move(copy));
  }
  return out;
}

// ---- the daemon's part

VfioHardware::VfioHardware(const Options& options, std::unique_ptr<fabric::Attachment> host,
                           std::unique_ptr<rail::nhi::VfioDevice> device)
    : Hardware(std::move(host)), options_(options), device_(*device) {
  host_->device = std::move(device);
}

// Not before Linux 6.0.
bool VfioHardware::kernel_takes_back() {
  utsname names{};
  return ::uname(&names) == 0 && std::atoi(names.release) >= 6;
}

Result<std::unique_ptr<Hardware>> VfioHardware::open(const Options& options,
                                                     std::vector<sys::UniqueFd> fds,
                                                     rail::nhi::VfioKernel& kernel) {
  if (fds.size() != kDescriptors) {
    return Status(EPROTO, "descriptors of the controller are missing");
  }
  auto mapped = fabric::map_memory(rail::kDaemonSlot, std::move(fds[0]), std::move(fds[1]));
  if (!mapped) return mapped.error();
  rail::HostMemory& memory = *mapped.value()->memory;
  const rail::nhi::VfioHandles handles{
      .container = fds[2].release(), .group = fds[3].release(), .device = fds[4].release()};
  auto device = rail::nhi::VfioDevice::open({.address = options.address,
                                             .root = options.root,
                                             .memory = {memory.base(), memory.bytes()},
                                             .inherited = handles,
                                             .goes_on = options.goes_on},
                                            kernel);
  if (!device) return device.error();
  // A vector that fired while no daemon was there has told nobody.
  if (options.goes_on) memory.wake_for_interrupt();
  return std::unique_ptr<Hardware>(
      new VfioHardware(options, std::move(mapped).value(), std::move(device).value()));
}

Answer VfioHardware::grant(rail::SlotId slot) const {
  Answer a;
  a.attached = slot;
  fabric::AttachGrant grant{.slot = slot, .host = options_.host, .vfio = device_.identity()};
  a.fds = {device_.handles().device, host_->memory->fd(), host_->wake_fd};
  const rail::nhi::DmaRange own = device_.process_range(slot);
  if (options_.direct && own.bytes != 0) {
    grant.own = own;
    a.fds.push_back(device_.handles().container);
  }
  a.text = fabric::encode_grant(grant);
  return a;
}

// A descriptor that names memory of the dead process is in a ring, or was never announced: so once
// the rings have passed what was in them, the controller has no business there any more.
bool VfioHardware::reclaim(rail::SlotId slot) {
  const rail::nhi::DmaRange own = device_.process_range(slot);
  if (slot == rail::kDaemonSlot || !options_.direct || own.bytes == 0) return true;
  const auto& rails = host_->rails;
  const auto [dead, fresh] = dying_.try_emplace(slot);
  if (fresh) {
    for (const auto& rail : rails) dead->second.push_back(rail->tx_posted());
  }
  for (size_t r = 0; r < rails.size(); r++) {
    if (!rails[r]->tx_read(dead->second[r])) return false;
  }
  dying_.erase(dead);
  // What is left then is in the way of the slot's next process, which copies its payload instead.
  if (const Status s = device_.take_back(own); !s) {
    spdlog::error("slot {}: {}: {}", slot, s.text(), strerror(s.code()));
  }
  return true;
}

Answer VfioHardware::change_cable(const fabric::Request&) {
  return {.text = fabric::encode_refusal(ENOTSUP, "a real cable has no settings")};
}

void VfioHardware::report(nlohmann::json& status) const {
  status["controller"] = {{"address", options_.address},
                          {"direct", options_.direct},
                          {"vectors", device_.vectors()},
                          {"locked_bytes", device_.locked_bytes()},
                          {"page_bytes", host_->memory->page_bytes()},
                          {"gone", device_.is_gone()}};
  status["cables"] = nlohmann::json::array();
}

std::vector<int> VfioHardware::descriptors() const {
  std::vector<int> out;
  for (uint32_t v = 0; v < device_.vectors(); v++) out.push_back(device_.interrupt_fd(v));
  if (device_.give_back_fd() >= 0) out.push_back(device_.give_back_fd());
  return out;
}

// The daemon is awake now and looks into every ring; the processes that sleep are woken beside it,
// so that none of them waits until it has come to their frames.
void VfioHardware::handle(int descriptor) {
  drain(descriptor);
  if (descriptor == device_.give_back_fd()) {
    wanted_back_ = true;
  } else {
    host_->memory->wake_for_interrupt();
  }
}

Answer VfioHardware::remove() {
  return {.text = fabric::encode_refusal(EOPNOTSUPP, "the controller is a real one")};
}

std::string VfioHardware::trouble() const {
  if (const std::string gone = Hardware::trouble(); !gone.empty()) return gone;
  return wanted_back_ ? "the kernel wants the controller back" : "";
}

}  // namespace tbt::daemon
