#include "fabric/open_host.h"

#include "rail/nhi/vfio_window.h"
#include "rail/shared_rail.h"

namespace tbt::fabric {

Result<std::unique_ptr<Attachment>> map_host(const HostShape& shape,
                                             std::vector<sys::UniqueFd> fds) {
  if (fds.size() != descriptors_of(shape.hosts) || shape.host >= shape.hosts) {
    return Status(EPROTO, "descriptors of the fabric are missing");
  }
  auto a = std::make_unique<Attachment>();
  auto silicon = rail::emulated::EmulatedFabric::map(std::move(fds[0]));
  if (!silicon) return silicon.error();
  a->silicon = std::move(silicon).value();
  if (a->silicon->hosts() != shape.hosts) return Status(EPROTO, "the fabric has another shape");
  for (uint32_t h = 0; h < shape.hosts; h++) {
    auto memory = rail::HostMemory::map(std::move(fds[1 + h]));
    if (!memory) return memory.error();
    a->memories.push_back(std::move(memory).value());
    a->interrupt_fds.push_back(std::move(fds[1 + shape.hosts + h]));
    a->silicon->attach_host(h, a->memories[h].get(), a->interrupt_fds[h].get());
  }
  a->slot = shape.slot;
  a->memory = a->memories[shape.host].get();
  a->wake_fd = a->interrupt_fds[shape.host].get();
  a->memory->set_daemon_wake_fd(a->wake_fd);
  a->device = a->silicon->open_device(shape.host);
  if (a->device == nullptr) return Status(ENODEV, "the controller cannot be opened");
  a->silicon->populate(shape.host);
  return a;
}

Result<std::unique_ptr<Attachment>> map_memory(rail::SlotId slot, sys::UniqueFd memory,
                                               sys::UniqueFd wake) {
  auto a = std::make_unique<Attachment>();
  auto mapped = rail::HostMemory::map(std::move(memory));
  if (!mapped) return mapped.error();
  a->slot = slot;
  a->memories.push_back(std::move(mapped).value());
  a->interrupt_fds.push_back(std::move(wake));
  a->memory = a->memories[0].get();
  a->memory->populate();
  a->wake_fd = a->interrupt_fds[0].get();
  a->memory->set_daemon_wake_fd(a->wake_fd);
  return a;
}

Result<std::unique_ptr<Attachment>> map_vfio_host(const AttachGrant& grant,
                                                  std::vector<sys::UniqueFd> fds,
                                                  rail::nhi::VfioKernel& kernel) {
  if (!grant.vfio || fds.size() != kVfioDescriptors + (grant.own ? 1 : 0)) {
    return Status(EPROTO, "descriptors of the controller are missing");
  }
  auto a = map_memory(grant.slot, std::move(fds[1]), std::move(fds[2]));
  if (!a) return a;
  rail::nhi::OwnMemory own;
  if (grant.own) own = {std::move(fds[3]), *grant.own};
  auto window =
      rail::nhi::VfioWindow::open(std::move(fds[0]), *grant.vfio, std::move(own), kernel);
  if (!window) return window.error();
  a.value()->device = std::move(window).value();
  return a;
}

Status open_rails(Attachment& host) {
  for (uint32_t k = 0; k < host.memory->cables(); k++) {
    host.rails.push_back(rail::open_nhi_rail(*host.memory, k, *host.device, host.slot, classify));
  }
  host.rails.push_back(rail::open_loopback_rail(*host.memory, host.slot, classify));
  for (const auto& rail : host.rails) {
    if (rail == nullptr) return Status(EIO, "a rail cannot be opened");
  }
  return {};
}

}  // namespace tbt::fabric
