#include "device/context.h"

#include <algorithm>
#include <cstdio>

#include "device/objects.h"
#include "sys/monotonic_clock.h"

namespace tbt {

namespace {

std::string device_name(uint8_t cable) {
  return cable == fabric::kAggregate ? "tbt0" : "tbt0c" + std::to_string(cable);
}

}  // namespace

Result<std::vector<DeviceInfo>> Context::list_devices() {
  return device::or_no_memory([]() -> Result<std::vector<DeviceInfo>> {
    Status why;
    device::Process* process = device::Process::get(why);
    if (process == nullptr) return why;
    std::vector<DeviceInfo> list;
    const auto hold = process->guard();
    for (const fabric::PortEntry& port : process->directory().ports) {
      if (port.lid != 0) list.push_back({device_name(port.cable), port.guid});
    }
    return list;
  });
}

namespace {

Result<Context*> open_device(const std::string& name, AsyncSink* sink) {
  Status why;
  device::Process* process = device::Process::get(why);
  if (process == nullptr) return why;
  int found = -1;
  {
    const auto hold = process->guard();
    const auto& ports = process->directory().ports;
    for (size_t i = 0; i < ports.size(); ++i) {
      if (ports[i].lid != 0 && device_name(ports[i].cable) == name) found = static_cast<int>(i);
    }
  }
  if (found < 0) return Status(ENODEV, "no device of that name");
  auto context = std::make_unique<device::ContextImpl>(*process, static_cast<uint8_t>(found), sink);
  process->add_context(*context);
  return context.release();
}

}  // namespace

Result<Context*> Context::open(const std::string& name, AsyncSink* sink) {
  return device::or_no_memory([&] { return open_device(name, sink); });
}

}  // namespace tbt

namespace tbt::device {

namespace {

struct Speed {
  uint32_t gbps;
  uint8_t width;  // verbs codes: 1X = 1, 4X = 2, 8X = 4, 12X = 8, 2X = 16
};
// With FDR10 lanes (code 8, 10 Gb/s each) the product is exactly the link's rate.
constexpr uint8_t kSpeedFdr10 = 8;
constexpr Speed kSpeeds[] = {{20, 16}, {40, 2}, {80, 4}, {120, 8}};

}  // namespace

DeviceAttr ContextImpl::query_device() const {
  const auto hold = process_.guard();
  DeviceAttr attr;
  attr.node_guid = entry().guid;
  attr.sys_image_guid = process_.directory().ports[0].guid;
  attr.vendor_id = process_.directory().vendor_id;
  attr.vendor_part_id = process_.directory().device_id;
  attr.fw_version = TBT_VERSION;
  attr.host_incarnation = process_.directory().incarnation;
  return attr;
}

PortAttr ContextImpl::query_port() const {
  const auto hold = process_.guard();
  const fabric::DirectoryData& directory = process_.directory();
  PortAttr attr;
  attr.active = process_.port_active(port_);
  attr.lid = entry().lid;
  uint32_t gbps = 0;
  for (uint32_t k = 0; k < directory.cables; ++k) {
    if (entry().cable == fabric::kAggregate || entry().cable == k)
      gbps = std::max(gbps, directory.links[k].speed_gbps);
  }
  attr.speed_100mbps = gbps * 10;
  // Of this process: another one's are its own business.
  attr.qkey_viol_cntr = static_cast<uint32_t>(process_.endpoint().stats().rx_bad_qkey);
  attr.active_speed = kSpeedFdr10;
  attr.active_width = 1;
  for (const Speed& speed : kSpeeds) {
    if (gbps >= speed.gbps) attr.active_width = speed.width;
  }
  return attr;
}

Gid ContextImpl::query_gid(uint32_t index) const {
  const auto hold = process_.guard();
  Gid gid;
  if (index < entry().gid_count) gid.raw = entry().gids[index];
  return gid;
}

Result<Pd*> ContextImpl::create_pd() {
  TBT_REQUIRE_USABLE();
  return or_no_memory([this]() -> Result<Pd*> {
    const auto hold = process_.guard();
    return adopt(std::make_unique<PdImpl>(*this)).keep();
  });
}

Result<Cq*> ContextImpl::create_cq(const CqOptions& options) {
  TBT_REQUIRE_USABLE();
  if (options.entries == 0 || options.entries > limits::kMaxCqe)
    return Status(EINVAL, "no such number of entries");
  return or_no_memory([&]() -> Result<Cq*> {
    auto cq = std::make_unique<CqImpl>(*this, options);
    const auto hold = process_.guard();
    return adopt(std::move(cq)).keep();
  });
}

Result<Xrcd*> ContextImpl::create_xrcd(Xrcd* same_as) {
  TBT_REQUIRE_USABLE();
  return or_no_memory([&]() -> Result<Xrcd*> {
    const auto hold = process_.guard();
    auto domain = same_as != nullptr ? static_cast<XrcdImpl*>(same_as)->domain
                                     : std::make_shared<verbs::XrcDomain>();
    return adopt(std::make_unique<XrcdImpl>(*this, std::move(domain))).keep();
  });
}

uint64_t ContextImpl::now_ns() const noexcept { return static_cast<uint64_t>(process_.now().ns); }

// Queue pairs first, so that nothing uses the rest; then the keys, of windows before those of
// regions, so that nobody reaches the memory.
void ContextImpl::close() {
  if (!Process::usable()) return;
  for (auto at = objects_.begin(); at != objects_.end();) {
    auto* qp = dynamic_cast<QpImpl*>(at->second.get());
    ++at;  // the pair takes itself out
    if (qp != nullptr) (void)qp->destroy();
  }
  process_.remove_context(*this);
  {
    auto hold = process_.guard();
    for (auto& [object, owned] : objects_) {
      if (auto* window = dynamic_cast<MwImpl*>(owned.get())) window->forget();
      if (auto* srq = dynamic_cast<SrqImpl*>(owned.get())) srq->leave_domain();
      if (auto* cq = dynamic_cast<CqImpl*>(owned.get())) process_.endpoint().forget(cq->queue);
    }
    for (auto& [object, owned] : objects_) {
      if (auto* mr = dynamic_cast<MrImpl*>(owned.get()))
        process_.endpoint().regions().erase(mr->lkey());
    }
    // What a ring that stands still may still read stays mapped until the process ends.
    if (process_.wait_read(hold)) {
      hold.unlock();
      for (auto& [object, owned] : objects_) {
        if (auto* mr = dynamic_cast<MrImpl*>(owned.get())) process_.direct().unmap(mr->mapping());
      }
    }
  }
  delete this;
}

void ContextImpl::raise(const AsyncEvent& event) noexcept {
  if (sink_ != nullptr) sink_->on_async_event(event);
}

void ContextImpl::routes_changed(const fabric::DirectoryData& before, bool was_active) noexcept {
  for (AhImpl* handle : address_handles_) handle->resolve();
  if (process_.directory().controller_lost && !before.controller_lost) {
    raise({AsyncEventType::kDeviceFatal, nullptr});
  }
  if (entry().gids != before.ports[port_].gids) raise({AsyncEventType::kGidChange, nullptr});
  const bool active = process_.port_active(port_);
  if (active == was_active) return;
  raise({active ? AsyncEventType::kPortActive : AsyncEventType::kPortErr, nullptr});
}

void ContextImpl::discard(const Object& object) noexcept { objects_.erase(&object); }

}  // namespace tbt::device
